"""What `test_guarantees.py` is tested on: append a strategy with a grid to CASES, and it must keep the guarantees."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from unveil_masking import (
    BlockMask,
    FrameMask,
    Grid,
    GridMask,
    GuidedMask,
    InverseBlockMask,
    MultiBlockMask,
    RandomMask,
    RatioRange,
    SplitMask,
    Strategy,
    TubeMask,
    UnitMask,
)
from unveil_masking._arrays import integers
from unveil_masking._noise import noise_range

# The first example of a test may pay for imports; time limits say nothing about correctness here.
settings.register_profile("unveil", deadline=None, max_examples=25)
settings.load_profile("unveil")


@dataclass(frozen=True)
class Scored(GuidedMask):
    """A guided mask whose scores are made up from the sample ids, so that it is called like any other strategy."""

    def sample(self, grid, sample_ids, *, seed, epoch=0):
        width = grid.image.num if self.share == "clip" else grid.num
        ids = integers(sample_ids, "sample_ids")
        ids = ids.sum().reshape(1) * 0 if self.share == "batch" else ids
        scores = (noise_range(99, 0, ids, width) >> 24) / 16.0 - 8.0  # 256 values: ties happen
        return GuidedMask.sample(self, grid, sample_ids, seed=seed, epoch=epoch, scores=scores)


@dataclass(frozen=True)
class Case:
    """A strategy on a grid it fits, and the number it must hide there: (fewest, most)."""

    strategy: Strategy
    grid: Grid
    hidden: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.strategy} on {self.grid}".replace("'", "").replace("×", "x")


CASES = [
    Case(RandomMask(0.75), Grid(14, 14), (147, 147)),
    Case(RandomMask(0.9), Grid(10, 10), (90, 90)),
    Case(RandomMask(0.9, "float_floor_keep"), Grid(10, 10), (91, 91)),
    Case(RandomMask(0), Grid(3, 5), (0, 0)),
    Case(RandomMask(0.875), Grid(1, 8), (7, 7)),
    Case(RandomMask(0.5, share="clip"), Grid(3, 4, 2), (12, 12)),
    Case(RandomMask(0.5, share="batch"), Grid(5, 3), (8, 8)),
    Case(UnitMask(8, 0.6), Grid(48, 48), (22 * 64, 22 * 64)),
    Case(UnitMask(2, 0.6), Grid(14, 14), (120, 120)),
    Case(UnitMask(2, 0.5, share="clip"), Grid(4, 6, 3), (36, 36)),
    Case(UnitMask(3, 0.5, share="batch"), Grid(3, 6), (9, 9)),
    Case(GridMask(2), Grid(14, 14), (147, 147)),
    Case(GridMask(2), Grid(1, 7), (3, 3)),
    Case(GridMask(3, "fixed"), Grid(7, 5), (29, 29)),
    Case(GridMask(2, share="clip"), Grid(4, 6, 2), (36, 36)),
    Case(SplitMask(), Grid(14, 14), (98, 98)),
    Case(SplitMask(share="clip"), Grid(3, 3, 2), (8, 8)),
    Case(TubeMask(0.9), Grid(14, 14, 8), (176 * 8, 176 * 8)),
    Case(TubeMask(0.5, share="batch"), Grid(3, 3, 2), (8, 8)),
    Case(FrameMask(0.875), Grid(3, 4, 8), (84, 84)),
    Case(FrameMask(0.5, share="batch"), Grid(2, 2, 5), (8, 8)),
    Case(BlockMask(), Grid(14, 14), (0, 75)),
    Case(BlockMask(0.4, min_block=3), Grid(1, 20), (0, 8)),
    Case(BlockMask(0.5, min_block=4, max_block=20, exact=True), Grid(16, 12), (96, 96)),
    Case(BlockMask(0.4, exact=True, min_block=2, share="clip"), Grid(5, 4, 3), (24, 24)),
    Case(BlockMask(0.4, share="batch"), Grid(9, 9), (0, 32)),
    Case(InverseBlockMask(), Grid(16, 16), (166, 166)),
    Case(InverseBlockMask(0.65, "floor_keep", roll=False), Grid(16, 16), (167, 167)),
    Case(InverseBlockMask(0.8, min_aspect=1), Grid(3, 40), (96, 96)),
    Case(InverseBlockMask(0.5, share="clip"), Grid(5, 7, 2), (34, 34)),
    Case(InverseBlockMask(share="batch"), Grid(1, 30), (19, 19)),
    Case(MultiBlockMask(), Grid(14, 14), (20, 186)),
    Case(MultiBlockMask(2, (0.1, 0.3), (0.5, 2), (0.5, 0.9), (0.8, 1.2)), Grid(6, 9), (6, 44)),
    Case(MultiBlockMask(sizes="batch"), Grid(16, 16), (25, 246)),
    Case(MultiBlockMask(share="clip"), Grid(7, 7, 2), (8, 78)),
    Case(MultiBlockMask(share="batch"), Grid(1, 40), (6, 30)),
    Case(RatioRange(RandomMask(0)), Grid(14, 14), (19, 98)),
    Case(RatioRange(RandomMask(0), 0.25, 0.25, spread="sample"), Grid(4, 4), (4, 4)),
    Case(RatioRange(BlockMask(exact=True, min_block=4), masked=0.5), Grid(16, 16), (0, 128)),
    Case(RatioRange(BlockMask(), 0, 0.6, spread="sample", share="clip"), Grid(7, 9, 2), (0, 74)),
    Case(RatioRange(RandomMask(0), share="batch"), Grid(7, 9), (6, 31)),
    Case(Scored(0.75), Grid(14, 14), (147, 147)),
    Case(Scored(0.6, "gumbel", 0.5), Grid(5, 7), (21, 21)),
    Case(Scored(0.5, easy=0.3), Grid(6, 6), (18, 18)),
    Case(Scored(0.5, "gumbel", easy=0.3, easy_from="lowest", share="clip"), Grid(3, 4, 3), (18, 18)),
    Case(Scored(0.5, share="batch"), Grid(3, 5), (8, 8)),
]


@pytest.fixture(params=CASES, ids=str, scope="session")
def case(request) -> Case:
    return request.param


@pytest.fixture(params=[case for case in CASES if case.strategy.share == "clip"], ids=str, scope="session")
def clip_case(request) -> Case:
    """Cases with one mask for all temporal slots."""
    return request.param


@pytest.fixture(params={type(case.strategy): case for case in reversed(CASES)}.values(), ids=str, scope="session")
def case_of_a_kind(request) -> Case:
    """The first case of each strategy."""
    return request.param
