"""Rows of ``benchmarks.masking``: who draws the same kind of mask, and how sameness is shown.

Masks are random, so outputs are equal in distribution, not in bits. Before anything is timed, both sides draw a batch:
shapes and counts must agree exactly, and the reported difference is the largest over tokens between the two shares of
samples that hide it. It may be six standard errors of that difference, which sampling alone
exceeds less than once in 10⁶ runs.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate
from unveil_masking import BlockMask, Grid, RandomMask, Strategy, UnitMask, noise
from unveil_masking._noise import noise_pieces

from benchmarks._compare import Absent, Candidate, Comparison
from benchmarks._masking_peers import Generator, beit_generator, patch_dropouts, simmim_generator, sorted_noise

__all__ = ["Sizes", "block_row", "linear_rows", "noise_row", "random_row", "simmim_rows"]

_ERRORS = 6.0
_GRID = Grid(14, 14)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much is drawn, and where."""

    batch: int
    """Samples at 14 × 14; larger grids get fewer, for the same number of tokens."""
    device: torch.device
    """Where random masks are drawn; the generators of SimMIM and BEiT run on the CPU anyway."""

    @property
    def ids(self) -> np.ndarray:
        """int64 [b]."""
        return np.arange(self.batch)


def simmim_rows(sizes: Sizes, clone: Path | None) -> Iterator[Comparison]:
    """Yield 32-pixel units on 16-pixel patches (14 × 14) and on SwinV2's 4-pixel ones (48 × 48)."""
    for image, patch, bar in ((224, 16, 20.0), (192, 4, None)):
        strategy, grid = UnitMask(32 // patch, 0.6), Grid(image // patch, image // patch)
        name, generator = simmim_generator(clone, image=image, unit=32, patch=patch, ratio=0.6)
        batched = f"{name}, collated"
        yield _generator_row(
            title=f"SimMIM's masks, 60 % of 32-pixel units, {grid} tokens, batch {sizes.batch}",
            strategy=strategy,
            grid=grid,
            unit=strategy.unit,
            sizes=sizes,
            generator=generator,
            peers=[
                Candidate(name=name, run=lambda draw=generator: [draw() for _ in range(sizes.batch)]),
                Candidate(
                    name=batched, run=lambda draw=generator: default_collate([draw() for _ in range(sizes.batch)])
                ),
            ],
            bars={} if bar is None else {name: bar, batched: bar},
        )


def noise_row(sizes: Sizes) -> Comparison:
    """Return the noise of SimMIM's masks alone over the whole: what no way of choosing units can save."""
    units, strategy, name = Grid(7, 7), UnitMask(2, 0.6), "its noise alone"

    def draw() -> list[np.ndarray]:
        return [words[:, 0] for _, words in noise_pieces(0, 0, sizes.ids, units.num)]

    def differences() -> dict[str, float]:
        order = noise(0, 0, sizes.ids, np.arange(units.num)).argsort(1)
        hidden = np.zeros(order.shape, dtype=bool)
        np.put_along_axis(hidden, order[:, -strategy.num_hidden(_GRID) // 4 :], values=True, axis=1)
        mask = hidden.reshape(-1, units.rows, units.cols).repeat(2, 1).repeat(2, 2).reshape(sizes.batch, -1)
        return {name: float((mask != strategy.sample(_GRID, sizes.ids, seed=0).mask).sum())}

    return Comparison(
        title=f"SimMIM's masks, {_GRID} tokens, and the noise that they are drawn by, batch {sizes.batch}",
        ours=Candidate(name="ours", run=lambda: strategy.sample(_GRID, sizes.ids, seed=0)),
        peers=[Candidate(name=name, run=draw)],
        differences=differences,
        tolerance=0.0,
    )


def block_row(sizes: Sizes, clone: Path | None) -> Comparison:
    """Return BEiT's block masks, 75 of 196 tokens."""
    strategy = BlockMask()
    name, generator = beit_generator(clone, side=14, hidden=75, min_block=16)
    return _generator_row(
        title=f"BEiT's block masks, at most 75 of 196 tokens, batch {sizes.batch}",
        strategy=strategy,
        grid=_GRID,
        unit=1,
        sizes=sizes,
        generator=generator,
        peers=[Candidate(name=name, run=lambda: [generator() for _ in range(sizes.batch)])],
        bars={name: 10.0},
    )


def random_row(sizes: Sizes, ratio: float = 0.75) -> Comparison:
    """Return random keep sets: sorted noise one sample at a time and in a batch, and the modules of timm and open_clip.

    The modules also gather tokens, so they are given some of width 1; ours gathers them as well in that case.
    """
    kept = RandomMask(ratio).sample(_GRID, np.zeros(1, np.int64), seed=0).num_kept
    ids = torch.arange(sizes.batch, device=sizes.device)

    def ours() -> Tensor:
        return RandomMask(ratio).sample(_GRID, ids, seed=0).keep

    one, whole = "rand + argsort, sample by sample", "rand + argsort, whole batch"
    draws: dict[str, Callable[[], Tensor]] = {
        one: lambda: torch.cat([sorted_noise(1, _GRID.num, kept, sizes.device) for _ in range(sizes.batch)]),
        whole: lambda: sorted_noise(sizes.batch, _GRID.num, kept, sizes.device),
    }
    absent: list[Absent] = []
    for name, module in patch_dropouts(ratio).items():
        if isinstance(module, Absent):
            absent.append(module)
            continue
        draws[f"{name}'s PatchDropout"] = _kept_by(module, sizes, prefix=int(name == "open_clip"))
    return Comparison(
        title=f"Random keep sets, {kept} of {_GRID.num} tokens, batch {sizes.batch}, on {sizes.device}",
        ours=Candidate(name="ours", run=ours),
        peers=[*(Candidate(name=name, run=draw) for name, draw in draws.items()), *absent],
        differences=lambda: {name: _apart(_as_mask(ours()), _as_mask(draw())) for name, draw in draws.items()},
        tolerance=_tolerance(sizes.batch, 1 - ratio),
        bars={one: 3.0},
    )


def linear_rows(sizes: Sizes) -> Iterator[Comparison]:
    """Yield equally many tokens as ever larger grids: with a cost linear in tokens, all take the same time."""
    strategies: tuple[Strategy, ...] = (RandomMask(0.75), UnitMask(2, 0.5), BlockMask(0.4))
    for strategy in strategies:
        runs = {Grid(side, side): max(1, sizes.batch * 196 // side**2) for side in (112, 56, 28, 14)}
        (largest, few), *others = runs.items()
        names = {grid: f"{grid}, {batch} samples" for grid, batch in others}
        yield Comparison(
            title=f"Linear cost: {type(strategy).__name__} on {largest}, {few} samples, against smaller grids",
            ours=_drawing(f"{largest}, {few} samples", strategy, largest, few),
            peers=[_drawing(names[grid], strategy, grid, batch) for grid, batch in others],
            differences=lambda grids=tuple(others), names=names, few=few, largest=largest: {
                names[grid]: abs(grid.num * batch / (largest.num * few) - 1) for grid, batch in grids
            },
            tolerance=0.0,
            bars=dict.fromkeys(names.values(), 0.8),
        )


def _drawing(name: str, strategy: Strategy, grid: Grid, batch: int) -> Candidate:
    ids = np.arange(batch)
    return Candidate(name=name, run=lambda: strategy.sample(grid, ids, seed=0))


def _generator_row(
    *,
    title: str,
    strategy: Strategy,
    grid: Grid,
    unit: int,
    sizes: Sizes,
    generator: Generator,
    peers: list[Candidate],
    bars: dict[str, float],
) -> Comparison:
    """Ours on NumPy against a generator that draws one sample a call."""

    def differences() -> dict[str, float]:
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002  the peers use the global generators
        theirs = np.stack([generator() for _ in range(sizes.batch)]).reshape(sizes.batch, -1) > 0
        ours = strategy.sample(grid, sizes.ids, seed=0).mask
        both_whole = all(_units_are_whole(mask, grid, unit) for mask in (ours, theirs))
        apart = _apart(ours, theirs) if both_whole else math.inf
        return {peer.name: apart for peer in peers}

    fewest, most = strategy.hidden_range(grid)
    return Comparison(
        title=title,
        ours=Candidate(name="ours", run=lambda: strategy.sample(grid, sizes.ids, seed=0)),
        peers=list(peers),
        differences=differences,
        tolerance=_tolerance(sizes.batch, most / grid.num if fewest == most else 0.5),
        bars=bars,
    )


def _kept_by(module: nn.Module, sizes: Sizes, prefix: int) -> Callable[[], Tensor]:
    """Return a draw of a module that drops tokens: each token carries its own number."""
    numbers = torch.arange(-prefix, _GRID.num, dtype=torch.float32, device=sizes.device)
    tokens = numbers.expand(sizes.batch, -1)[..., None].contiguous()
    return lambda: module(tokens)[:, prefix:, 0].long()


def _as_mask(keep: Tensor) -> np.ndarray:
    """Bool [b, n], True = hidden, from kept tokens [b, k]."""
    mask = np.ones((keep.shape[0], _GRID.num), dtype=bool)
    np.put_along_axis(mask, keep.cpu().numpy(), values=False, axis=1)
    return mask


def _units_are_whole(mask: np.ndarray, grid: Grid, unit: int) -> bool:
    by_unit = mask.reshape(len(mask), grid.rows // unit, unit, grid.cols // unit, unit)
    return bool((by_unit == by_unit[:, :, :1, :, :1]).all())


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference of a token's share of samples that hide it; infinite where shapes or counts disagree."""
    if ours.shape != theirs.shape:
        return math.inf
    counts = ours.sum(1), theirs.sum(1)
    if any(np.ptp(count) == 0 for count in counts) and not np.array_equal(*counts):
        return math.inf
    error = math.hypot(*(count.std() for count in counts)) / math.sqrt(len(ours))
    if abs(counts[0].mean() - counts[1].mean()) > _ERRORS * error:
        return math.inf
    return float(np.abs(ours.mean(0) - theirs.mean(0)).max())


def _tolerance(batch: int, share: float) -> float:
    """Six standard errors of the difference of two shares, each of ``batch`` samples."""
    return _ERRORS * math.sqrt(2 * share * (1 - share) / batch)
