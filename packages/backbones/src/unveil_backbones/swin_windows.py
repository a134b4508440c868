"""In which order the tokens of a Swin Transformer lie in memory, for one size of image.

Shifted windows are usually made by rolling the map, cutting it into windows, and undoing both after attention: four
copies per block. Everything else in a block treats tokens one by one, so the tokens may as well stay in the order of
their windows: one gather leads from a block's order to the next block's, and none is needed where one window covers the
grid (Liu et al., arXiv 2111.09883, section 3.3, has the windows; the order is ours).

An order is the list of raster indices in the sequence in which they lie in memory. A grid that is no multiple of its
window is padded below and on the right with empty tokens, after rolling, as timm does; such a stage keeps its tokens in
raster order and gathers them for every attention.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BiasGeometry", "BlockPlan", "Reorder", "StagePlan", "make_plan"]

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Reorder:
    """A permutation of tokens and its inverse, which is the gradient's way back."""

    index: Tensor
    """int64 [n]: where each token comes from."""
    inverse: Tensor
    """int64 [n]: where each token goes to."""


@dataclass(frozen=True, slots=True)
class BiasGeometry:
    """The distances for which a window of ``t`` tokens needs a position bias."""

    coordinates: Tensor
    """float32 [d, 2]: log-spaced rows and columns of every distance within the window."""
    index: Tensor
    """int64 [t * t]: the distance of each pair of query and key."""


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """How one block finds its windows."""

    num_windows: int
    """Windows of one image."""
    geometry: BiasGeometry
    """Distances within a window."""
    before: Reorder | None
    """Changes the order of the tokens before the block; ``None`` where it does not change."""
    into: Tensor | None
    """int64: for a block whose tokens stay in raster order, the token at each place of the windows; ``n`` is empty."""
    back: Tensor | None
    """int64 [n]: the way back from those windows."""
    regions: Tensor | None
    """int8 [windows, t]: tokens of one window see each other only if their regions are equal; ``None``: always."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Orders of one stage."""

    grid: Pair
    """Rows and columns of its tokens."""
    merge: Reorder | None
    """Brings the previous stage's tokens into groups of four; ``None`` where they already are, or at the first stage.
    """
    merge_grid: Pair | None
    """Rows and columns before merging where merging takes raster order instead."""
    blocks: tuple[BlockPlan, ...]
    """One per block."""
    to_raster: Reorder | None
    """From the order of the last block to raster order."""
    leave: Reorder | None
    """What the stage itself applies at its end: ``to_raster`` where the next merging takes raster order."""
    orders: tuple[Reorder | None, ...]
    """From each block's order to raster order."""


@torch.compiler.assume_constant_result
def make_plan(
    grid: Pair,
    windows: tuple[int, ...],
    pretrained_windows: tuple[Pair, ...],
    depths: tuple[int, ...],
    *,
    window_order: bool,
    merge_gather: bool,
    device: torch.device,
) -> tuple[StagePlan, ...]:
    """Plan all stages for one grid of patches. A compiler runs it and takes the plan as it is.

    Args:
        grid: Rows and columns of the patches; multiples of ``2 ** (stages - 1)``.
        windows: Wanted window side of each stage.
        pretrained_windows: Windows of pre-training, which scale the distances.
        depths: Blocks of each stage; every second one is shifted by half a window.
        window_order: Whether tokens stay in window order where the grid is a multiple of the window.
        merge_gather: Whether merging is one gather out of the order before it.
        device: Where the indices will be used.
    """
    plans: list[StagePlan] = []
    with torch.inference_mode(False), torch.device("cpu"):
        current: Tensor | None = None
        for stage, (window, pretrained, depth) in enumerate(zip(windows, pretrained_windows, depths, strict=True)):
            sides = (grid[0] >> stage, grid[1] >> stage)
            layout = _Layout(sides, window, keep=window_order)
            merge, merge_grid = None, None
            if current is not None and merge_gather:
                groups = _groups(sides)[layout.order(0)] if layout.keep else _groups(sides)
                merge = _change(current, groups.flatten(), device)
                current = layout.order(0) if layout.keep else _raster(sides)
            else:
                merge_grid = None if current is None else (2 * sides[0], 2 * sides[1])
                current = _raster(sides)
            blocks, orders = [], []
            geometry = _geometry(layout.window, pretrained, device)
            for block in range(depth):
                plan, current = layout.block(block % 2, current, geometry, device)
                blocks.append(plan)
                orders.append(_change(current, _raster(sides), device))
            leaves = stage + 1 < len(windows) and not merge_gather
            to_raster = orders[-1]
            if leaves:
                current = _raster(sides)
            leave = to_raster if leaves else None
            plans.append(StagePlan(sides, merge, merge_grid, tuple(blocks), to_raster, leave, tuple(orders)))
    return tuple(plans)


class _Layout:
    """The windows of one stage."""

    def __init__(self, grid: Pair, window: int, *, keep: bool) -> None:
        self.grid = grid
        self.window = (min(window, grid[0]), min(window, grid[1]))
        # timm shifts by half of the wanted window, and not at all along an axis that one window covers.
        self.shift = (window // 2 if grid[0] > window else 0, window // 2 if grid[1] > window else 0)
        self.padded = (_round_up(grid[0], self.window[0]), _round_up(grid[1], self.window[1]))
        self.keep = keep and self.padded == grid

    def order(self, odd: int) -> Tensor:
        """Raster index at each place of the windows, rows x columns for an empty token."""
        axes, empty = [], []
        for side, padded, shift in zip(self.grid, self.padded, self.shift, strict=True):
            place = torch.arange(padded)
            axes.append((place + odd * shift) % side)
            empty.append(place >= side)
        index = axes[0][:, None] * self.grid[1] + axes[1]
        index = index.masked_fill(empty[0][:, None] | empty[1], self.grid[0] * self.grid[1])
        return self._cut(index).flatten()

    def regions(self) -> Tensor:
        """Which of up to nine regions, that rolling has brought together, each place of the windows belongs to."""
        parts = []
        for padded, window, shift in zip(self.padded, self.window, self.shift, strict=True):
            place = torch.arange(padded)
            parts.append(((place >= padded - window).int() + (place >= padded - shift).int()) * int(shift > 0))
        return self._cut(3 * parts[0][:, None] + parts[1]).to(torch.int8)

    def block(
        self, odd: int, current: Tensor, geometry: BiasGeometry, device: torch.device
    ) -> tuple[BlockPlan, Tensor]:
        """Plan of a block whose tokens come in the order ``current``, and the order in which it leaves them."""
        shifted = bool(odd) and any(self.shift)
        order = self.order(odd)
        regions = self.regions().to(device) if shifted else None
        num_windows = self.padded[0] * self.padded[1] // (self.window[0] * self.window[1])
        if self.keep:
            before = _change(current, order, device)
            return BlockPlan(num_windows, geometry, before, None, None, regions), order
        before = _change(current, _raster(self.grid), device)
        num_tokens = self.grid[0] * self.grid[1]
        back = torch.argsort(order, stable=True)[:num_tokens]
        into, back = order.to(device), back.to(device)
        return BlockPlan(num_windows, geometry, before, into, back, regions), _raster(self.grid)

    def _cut(self, places: Tensor) -> Tensor:
        """[rows, cols] → [windows, tokens of a window]."""
        rows, cols = self.window
        cut = places.reshape(self.padded[0] // rows, rows, self.padded[1] // cols, cols)
        return cut.transpose(1, 2).reshape(-1, rows * cols)


def _geometry(window: Pair, pretrained: Pair, device: torch.device) -> BiasGeometry:
    """Log-spaced coordinates (Swin V2, section 3.2, equation 4) over the window of pre-training."""
    axes = [
        torch.arange(1 - side, side, dtype=torch.float32) / max(trained - 1, 1) * 8
        for side, trained in zip(window, pretrained, strict=True)
    ]
    grid = torch.stack(torch.meshgrid(axes[0], axes[1], indexing="ij"), dim=-1).reshape(-1, 2)
    coordinates = torch.sign(grid) * torch.log2(grid.abs() + 1.0) / math.log2(8)
    rows, cols = (part.flatten() for part in torch.meshgrid(*(torch.arange(side) for side in window), indexing="ij"))
    row_distance = rows[:, None] - rows + window[0] - 1
    col_distance = cols[:, None] - cols + window[1] - 1
    index = row_distance * (2 * window[1] - 1) + col_distance
    return BiasGeometry(coordinates.to(device), index.flatten().to(device))


def _groups(grid: Pair) -> Tensor:
    """[n, 4]: raster indices, in the grid of twice the sides, of the four tokens that become each token of ``grid``."""
    rows, cols = torch.arange(grid[0])[:, None], torch.arange(grid[1])
    # timm concatenates them column by column.
    corners = [(2 * rows + down) * 2 * grid[1] + 2 * cols + right for right in (0, 1) for down in (0, 1)]
    return torch.stack(corners, dim=-1).reshape(-1, 4)


def _raster(grid: Pair) -> Tensor:
    return torch.arange(grid[0] * grid[1])


def _change(source: Tensor, target: Tensor, device: torch.device) -> Reorder | None:
    """The gather from one order to another; ``None`` where they are the same."""
    if torch.equal(source, target):
        return None
    index = torch.argsort(source)[target]
    return Reorder(index.to(device), torch.argsort(index).to(device))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
