"""What `test_guarantees.py` is tested on: append a strategy with a grid to CASES, and it must keep the guarantees."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from unveil_masking import FrameMask, Grid, GridMask, RandomMask, SplitMask, Strategy, TubeMask, UnitMask

# The first example of a test may pay for imports; time limits say nothing about correctness here.
settings.register_profile("unveil", deadline=None, max_examples=60)
settings.load_profile("unveil")


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
]


@pytest.fixture(params=CASES, ids=str, scope="session")
def case(request) -> Case:
    return request.param
