"""Which cells of a grid to run within a budget.

The rule. Cells are ranked: first the corners of the grid (every axis at one of its ends), since they show whether an
axis matters at all and where runs over-fit; then its centre, which shows whether the way between the corners is
straight; then the cells with one axis inside, with two, and so on. Within a rank the cheaper cells come first, and a
further seed comes after all cells of the seeds before it. The list is walked once: a cell is taken if it fits in what
is left of the budget, otherwise it is dropped, and cheaper ones after it may still be taken. No torch here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from unveil_pretrain.errors import PlanError

__all__ = ["RULE", "Choice", "Point", "choose", "grid"]

RULE = (
    "corners of the grid first, then its centre, then cells with one axis inside, two, ...; cheaper first; further "
    "seeds last; a cell that does not fit in the rest of the budget is dropped"
)
"""The rule in one sentence."""


@dataclass(frozen=True, slots=True)
class Point:
    """A cell of the grid by its places on the axes, and the number of its seed."""

    places: tuple[int, ...]
    """Index on each axis."""
    seed: int
    """Index of the seed."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a budget pays for."""

    taken: tuple[Point, ...]
    """In order of rank."""
    dropped: tuple[Point, ...]
    """Likewise; the first is the most missed."""
    cost: float
    """Of those taken."""


def grid(lengths: Sequence[int], num_seeds: int) -> list[Point]:
    """Every cell of axes with so many levels, and so many seeds.

    Raises:
        PlanError: an axis is empty.
    """
    if not lengths or min(lengths) < 1 or num_seeds < 1:
        raise PlanError(f"the axes have {list(lengths)} levels and {num_seeds} seeds; give at least one of each")
    return [
        Point(places, seed) for seed in range(num_seeds) for places in product(*(range(length) for length in lengths))
    ]


def choose(points: Sequence[Point], costs: Mapping[Point, float], lengths: Sequence[int], budget: float) -> Choice:
    """The cells that the rule takes.

    Args:
        points: Cells of the grid.
        costs: What each costs, in the unit of the budget.
        lengths: Levels of each axis.
        budget: What may be spent; infinity takes all.
    """
    ordered = sorted(points, key=lambda point: (point.seed, _rank(point, lengths), costs[point], point.places))
    taken: list[Point] = []
    dropped: list[Point] = []
    spent = 0.0
    for point in ordered:
        if spent + costs[point] <= budget:
            taken.append(point)
            spent += costs[point]
        else:
            dropped.append(point)
    return Choice(tuple(taken), tuple(dropped), spent)


def _rank(point: Point, lengths: Sequence[int]) -> int:
    """0 for corners, 1 for the centre, 1 + the number of inner axes for others."""
    inside = sum(0 < place < length - 1 for place, length in zip(point.places, lengths, strict=True))
    if not inside:
        return 0
    centre = all(place == length // 2 for place, length in zip(point.places, lengths, strict=True))
    return 1 if centre else 1 + inside
