"""Which strategies are shown, with which settings, and what is said of them.

An exhibit chooses its own ratio, mostly that of the paper it comes from, unless the scene has one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd

from unveil_masking._base import Strategy
from unveil_masking.block import BlockMask
from unveil_masking.grid import Grid
from unveil_masking.grid_mask import GridMask
from unveil_masking.guided import GuidedMask
from unveil_masking.inverse_block import InverseBlockMask
from unveil_masking.multi_block import MultiBlockMask
from unveil_masking.ratio_range import RatioRange
from unveil_masking.show import tiles
from unveil_masking.show.errors import ChoiceError
from unveil_masking.show.tiles import Scene, Shown
from unveil_masking.split import SplitMask
from unveil_masking.strategies import RandomMask, UnitMask
from unveil_masking.video import FrameMask, TubeMask

__all__ = ["EXHIBITS", "Exhibit", "check_ratio_applies"]


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
    show: Callable[[Strategy, Scene], Shown] = tiles.samples_and_epochs
    """Which masks of the strategy make the tiles."""

    def draw(self, scene: Scene) -> Shown:
        """The masks of a scene.

        Raises:
            MaskingError: the grid or the ratio does not fit.
        """
        return self.show(self.build(scene), scene)


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
        source="SimMIM, Hiera",
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
        source="BEiT, DINOv3",
        rule="hidden <= floor(n * ratio), exactly with exact=True",
        build=lambda scene: BlockMask(_own(scene, 0.383)),
    ),
    Exhibit(
        name="inverse_block",
        source="CAPI",
        rule="hidden = floor(n * ratio)",
        build=lambda scene: InverseBlockMask(_own(scene, 0.65)),
    ),
    Exhibit(
        name="multi_block",
        source="I-JEPA",
        rule="kept = context block less the target blocks",
        build=lambda _: MultiBlockMask(),
        takes_ratio=False,
        show=tiles.contexts_and_targets,
    ),
    Exhibit(
        name="split",
        source="SplitMask",
        rule="hidden = floor(n / 2)",
        build=lambda _: SplitMask(),
        takes_ratio=False,
        show=tiles.halves,
    ),
    Exhibit(
        name="tube",
        source="VideoMAE",
        rule="hidden = frames * floor(rows * cols * ratio)",
        build=lambda scene: TubeMask(_own(scene, 0.9)),
        show=tiles.slots_of_a_clip,
    ),
    Exhibit(
        name="frame",
        source="VideoMAE",
        rule="hidden = rows * cols * floor(frames * ratio)",
        build=lambda scene: FrameMask(_own(scene, 0.75)),
        show=tiles.slots_of_a_clip,
    ),
    Exhibit(
        name="ratio_range",
        source="DINOv2, DINOv3",
        rule="hidden = floor(n * ratio), a ratio for each sample",
        build=lambda _: RatioRange(BlockMask(exact=True)),
        takes_ratio=False,
    ),
    Exhibit(
        name="guided",
        source="scores: the contrast of each token",
        rule="kept = floor(n * (1 - ratio))",
        build=lambda scene: GuidedMask(_own(scene, 0.5)),
        show=tiles.ways_to_be_guided,
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
