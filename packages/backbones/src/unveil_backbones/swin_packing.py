"""Where visible tokens meet in a Swin Transformer of which only some units are computed, for one batch of masks.

A unit is a square of pixels that is visible as a whole or not at all. The tokens of visible units lie unit by unit, and
within a unit in the order in which mergings want them: every four in a row become one (a Z-order, columns first). A
*cell* is the largest square of tokens that neither units nor windows nor shifts cut; a *segment* is a window, or one
region of a shifted window, of one image. A token meets the visible tokens of its segment, and segments without any are
not there. Segments hold different numbers of cells; they are computed in a few groups, filled up to the group's size.

Shapes: ``b`` images, ``k`` visible units, ``v`` visible cells of an image, ``s`` cells of a window, ``g`` segments of
a group and ``f`` cells of each.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unveil_backbones.swin_windows import BiasGeometry, BlockPlan, StagePlan

__all__ = ["Group", "Segments", "StageCells", "pack_segments", "stage_cells", "z_order"]

_GROUPS = 6
"""Sizes of segments that are told apart; more of them fill up less and split the work more."""

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class StageCells:
    """What a stage's cells are for one grid; two of it for a stage that shifts every second block."""

    tokens: int
    """Tokens of a cell."""
    num_segments: int
    """Segments of an image."""
    of_unit: Tensor
    """int64 [units, cells of a unit]: raster index of each cell of a unit, in the order of memory."""
    segment: Tensor
    """int64 [cells]: the segment of each cell, by its raster index."""
    place: Tensor
    """int64 [cells]: the place of each cell in its window, in raster order."""
    places: int
    """Cells of a window."""
    plan: BlockPlan
    """The dense plan; its geometry lists pairs cell by cell: [s, s, tokens, tokens]."""


@dataclass(frozen=True, slots=True)
class Group:
    """Segments that are computed together."""

    size: int
    """Cells of each, filling included."""
    rows: slice
    """Where they lie among the cells of all groups."""
    pairs: Tensor
    """int64 [g · f · f]: the pair of places of each pair of cells, query first."""
    empty: Tensor | None
    """Bool [g, 1, 1, f · tokens]: keys that only fill up; ``None`` where there are none."""


@dataclass(frozen=True, slots=True)
class Segments:
    """How the visible cells of a batch meet in one kind of block."""

    tokens: int
    """Tokens of a cell."""
    groups: tuple[Group, ...]
    """The segments, by size."""
    index: Tensor | None
    """int64 [rows]: the visible cell (of the batch) in each row of the groups, 0 for filling; ``None``: as they lie."""
    padded: Tensor | None
    """int64 [rows]: the same with b · v for filling."""
    inverse: Tensor | None
    """int64 [b · v]: the row of each visible cell."""
    cells: StageCells
    """What these cells are."""


def z_order(side: int) -> list[Pair]:
    """Rows and columns of the tokens of a square in memory; ``side`` is a power of two."""
    places = [(0, 0)]
    step = side // 2
    while step:
        corners = [(down * step, right * step) for right in (0, 1) for down in (0, 1)]
        places = [(row + down, col + right) for row, col in places for down, right in corners]
        step //= 2
    return places


def stage_cells(plan: StagePlan, odd: int, *, window: int, unit: int, device: torch.device) -> StageCells:
    """Cells of the blocks of one parity.

    Args:
        plan: The dense plan of the stage, tokens in raster order (``window_order`` off).
        odd: 1 for the blocks that shift.
        window: Wanted side of a window, in tokens of the stage.
        unit: Side of a unit, in tokens of the stage; a power of two.
        device: Where the distances will be used; all else stays on the CPU.
    """
    grid, block = plan.grid, plan.blocks[odd]
    sides = (min(window, grid[0]), min(window, grid[1]))
    shifts = tuple(odd * (window // 2) if side > window else 0 for side in grid)
    cell = _power_of_two(math.gcd(unit, *sides, *shifts))
    cols = grid[1] // cell
    in_unit = [(row * cell, col * cell) for row, col in z_order(unit // cell)]
    units = [(row, col) for row in range(0, grid[0], unit) for col in range(0, grid[1], unit)]
    corner = [[(top + row, left + col) for row, col in in_unit] for top, left in units]
    of_unit = torch.tensor([[row // cell * cols + col // cell for row, col in cells] for cells in corner])
    segment, place = _where(grid, sides, shifts, cell)
    return StageCells(
        tokens=cell**2,
        num_segments=int(segment.max()) + 1,
        of_unit=of_unit,
        segment=segment,
        place=place,
        places=sides[0] * sides[1] // cell**2,
        plan=replace(block, geometry=_by_cells(block.geometry, sides, cell, device)),
    )


def pack_segments(cells: StageCells, units: Tensor, where: torch.device) -> Segments:
    """Segments of the visible units [b, k] of a batch, made on the CPU, for use on a device."""
    visible = cells.of_unit[units].flatten(1)
    batch, num_visible = visible.shape
    place = cells.place[visible].flatten()
    if cells.num_segments == 1:
        pairs = _pairs(place.view(batch, num_visible), cells.places)
        group = Group(num_visible, slice(0, batch * num_visible), pairs.to(where), None)
        return Segments(cells.tokens, (group,), None, None, None, cells)
    key = (cells.segment[visible] + torch.arange(batch)[:, None] * cells.num_segments).flatten()
    order = key.argsort(stable=True)
    counts = torch.bincount(key, minlength=batch * cells.num_segments)
    first = counts.cumsum(0) - counts
    step = -(-int(counts.max()) // _GROUPS)
    sizes = (counts + step - 1) // step * step
    groups, rows = [], []
    start = 0
    for size in sizes.unique().tolist():
        if size == 0:
            continue
        members = (sizes == size).nonzero()[:, 0]
        entry = torch.arange(size)
        filled = entry < counts[members, None]
        source = torch.where(filled, order[(first[members, None] + entry).clamp(max=len(order) - 1)], len(order))
        pairs = _pairs(torch.where(filled, place[source.clamp(max=len(order) - 1)], 0), cells.places)
        empty = None if bool(filled.all()) else ~filled.repeat_interleave(cells.tokens, 1)[:, None, None]
        stop = start + source.numel()
        groups.append(Group(size, slice(start, stop), pairs.to(where), None if empty is None else empty.to(where)))
        rows.append(source.flatten())
        start = stop
    padded = torch.cat(rows)
    inverse = torch.empty(len(order) + 1, dtype=torch.int64).scatter_(0, padded, torch.arange(len(padded)))[:-1]
    index = padded.where(padded < len(order), 0)
    return Segments(cells.tokens, tuple(groups), index.to(where), padded.to(where), inverse.to(where), cells)


def _where(grid: Pair, sides: Pair, shifts: tuple[int, ...], cell: int) -> tuple[Tensor, Tensor]:
    """Segment of each cell of the grid, and its place in its window."""
    windows, regions, places, counts = [], [], [], []
    for length, side, shift in zip(grid, sides, shifts, strict=True):
        # Rolling by the shift moves a token to the left; what comes back from the other end is another region.
        rolled = (torch.arange(0, length, cell) - shift) % length
        windows.append(rolled // side)
        regions.append((rolled >= length - shift).long())
        places.append(rolled % side // cell)
        counts.append(int(windows[-1].max()) + 1)
    window = windows[0][:, None] * counts[1] + windows[1]
    region = regions[0][:, None] * 2 + regions[1]
    place = places[0][:, None] * (sides[1] // cell) + places[1]
    _, segment = (window * 4 + region).flatten().unique(return_inverse=True)
    return segment, place.flatten()


def _by_cells(geometry: BiasGeometry, sides: Pair, cell: int, device: torch.device) -> BiasGeometry:
    """The same distances, pairs listed cell by cell, tokens within a cell in the order of memory."""
    inner = z_order(cell)
    tokens = torch.tensor(
        [
            (top + row) * sides[1] + left + col
            for top in range(0, sides[0], cell)
            for left in range(0, sides[1], cell)
            for row, col in inner
        ]
    )
    num = sides[0] * sides[1]
    index = geometry.index.view(num, num)[tokens][:, tokens]
    index = index.unflatten(1, (-1, cell**2)).unflatten(0, (-1, cell**2)).transpose(1, 2)
    return BiasGeometry(geometry.coordinates.to(device), index.flatten().to(device))


def _pairs(place: Tensor, places: int) -> Tensor:
    return (place[:, :, None] * places + place[:, None, :]).flatten()


def _power_of_two(number: int) -> int:
    return number & -number
