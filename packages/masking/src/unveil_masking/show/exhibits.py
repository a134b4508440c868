"""Which strategies are shown, with which settings, and what is said of them.

An exhibit draws its masks for a scene: the grid, the keys, and a score for each token. It chooses its own ratio, that
of the paper it comes from, unless the scene has one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np

from unveil_masking._base import Strategy
from unveil_masking.block import BlockMask
from unveil_masking.grid import Grid
from unveil_masking.grid_mask import GridMask
from unveil_masking.partition import Partition
from unveil_masking.show.errors import ChoiceError
from unveil_masking.split import SplitMask
from unveil_masking.strategies import RandomMask, UnitMask
from unveil_masking.video import FrameMask, TubeMask

__all__ = ["EXHIBITS", "Exhibit", "Scene", "Shown", "check_ratio_applies", "counts_in_words"]

_SLOTS = 4

Masks = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What masks are drawn for. Shapes: b masks, n tokens."""

    grid: Grid
    """Tokens of the picture."""
    sample_ids: np.ndarray
    """int64 [b]."""
    epochs: np.ndarray
    """int64 [b]."""
    seed: int
    ratio: float | None
    """Share of tokens to hide; None for each exhibit's own."""
    scores: np.ndarray
    """Float [n]: how much there is to see in each token, for guided masks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """Masks that are to be painted."""

    masks: Masks
    """Bool [tiles, n], True = hidden."""
    caption: str
    """What was drawn, in plain ASCII, which is all that the font has."""
    tiles: tuple[str, ...]
    """What each tile is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exhibit:
    """One strategy and how it is drawn."""

    name: str
    """As on the command line, and as `describe()["strategy"]` says."""
    source: str
    """Where it comes from, in a few words."""
    rule: str
    """How many tokens are hidden."""
    build: Callable[[Scene], Strategy]
    """The strategy for a scene, with the scene's ratio if it has one."""
    takes_ratio: bool = True
    """Whether `Scene.ratio` means anything to it."""
    num_slots: int = 1
    """Temporal slots of a clip; 1 for an image."""
    halves: bool = False
    """Whether what is hidden is shown as well, as the other half."""

    def draw(self, scene: Scene) -> Shown:
        """The masks of a scene: one tile for each key, or one for each slot of the first key's clip.

        Raises:
            MaskingError: the grid or the ratio does not fit.
        """
        strategy = self.build(scene)
        grid = Grid(scene.grid.rows, scene.grid.cols, self.num_slots)
        part = strategy.sample(grid, scene.sample_ids, seed=scene.seed, epoch=scene.epochs)
        said = counts_in_words(part.mask.sum(1), grid.num)
        if self.num_slots > 1:
            slots = part.mask[0].reshape(self.num_slots, scene.grid.num)
            tiles = tuple(f"slot {number}" for number in range(self.num_slots))
            return Shown(masks=slots, caption=f"{said}; {self.num_slots} slots of one clip", tiles=tiles)
        if self.halves:
            return _halves(part, scene, said)
        keys = zip(scene.sample_ids.tolist(), scene.epochs.tolist(), strict=True)
        return Shown(masks=part.mask, caption=said, tiles=tuple(f"sample {i}, epoch {e}" for i, e in keys))


def counts_in_words(hidden: np.ndarray, total: int) -> str:
    """How many tokens are hidden, as a number or a range, and which share of all it is."""
    fewest, most = int(hidden.min()), int(hidden.max())
    if fewest == most:
        return f"hides {most} of {total} tokens ({most / total:.1%})"
    return f"hides {fewest} to {most} of {total} tokens ({fewest / total:.1%} to {most / total:.1%})"


def _halves(part: Partition[Any], scene: Scene, said: str) -> Shown:
    """Two samples, each with the half that is kept and the half that is hidden."""
    both = np.stack([part.mask, part.complement().mask], 1)[:2].reshape(-1, scene.grid.num)
    tiles = tuple(f"sample {i}, half {half}" for i in scene.sample_ids[:2].tolist() for half in "AB")
    return Shown(masks=both, caption=f"{said}; both halves of two samples", tiles=tiles)


def _own(scene: Scene, ratio: float) -> float:
    return ratio if scene.ratio is None else scene.ratio


def _unit_side(grid: Grid) -> int:
    """The smallest unit of several tokens that tiles the grid; 1 if there is none."""
    common = gcd(grid.rows, grid.cols)
    return next((side for side in range(2, common + 1) if common % side == 0), 1)


EXHIBITS: tuple[Exhibit, ...] = (
    Exhibit(
        name="random",
        source="MAE, FLIP",
        rule="kept = floor(n * (1 - ratio))",
        build=lambda scene: RandomMask(_own(scene, 0.75)),
    ),
    Exhibit(
        name="unit",
        source="SimMIM",
        rule="hidden units = ceil(units * ratio)",
        build=lambda scene: UnitMask(_unit_side(scene.grid), _own(scene, 0.6)),
    ),
    Exhibit(
        name="grid",
        source="MAE figure 6, CLIPA",
        rule="kept = ceil(rows / cell) * ceil(cols / cell)",
        build=lambda _: GridMask(2),
        takes_ratio=False,
    ),
    Exhibit(
        name="block",
        source="BEiT",
        rule="hidden <= floor(n * ratio)",
        build=lambda scene: BlockMask(_own(scene, 0.383)),
    ),
    Exhibit(
        name="split",
        source="SplitMask",
        rule="hidden = floor(n / 2)",
        build=lambda _: SplitMask(),
        takes_ratio=False,
        halves=True,
    ),
    Exhibit(
        name="tube",
        source="VideoMAE",
        rule="hidden = frames * floor(rows * cols * ratio)",
        build=lambda scene: TubeMask(_own(scene, 0.9)),
        num_slots=_SLOTS,
    ),
    Exhibit(
        name="frame",
        source="VideoMAE",
        rule="hidden = rows * cols * floor(frames * ratio)",
        build=lambda scene: FrameMask(_own(scene, 0.75)),
        num_slots=_SLOTS,
    ),
)
"""Everything that hides parts of a picture, in the order of the gallery."""


def check_ratio_applies(exhibit: Exhibit, ratio: float | None) -> None:
    """Refuse a ratio for a strategy that has only one.

    Raises:
        ChoiceError: with the way out.
    """
    if ratio is not None and not exhibit.takes_ratio:
        raise ChoiceError(
            f"--ratio {ratio:g} does not go with {exhibit.name}, whose count is fixed: {exhibit.rule}. "
            "Leave --ratio out, or choose another strategy."
        )
