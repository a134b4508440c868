"""What choosing by x costs: pairs put in the right order, and the regret of taking the run with the lowest x.

In all functions a lower x promises a higher y (turn the sign of a column for which it is the other way round).
Shapes: n points.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unveil_evalharness.statistics.ranks import concordance

__all__ = ["Ordering", "Regret", "choice_by_length", "ordering", "ordering_of_counts", "regret"]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Groups = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ordering:
    """Share of pairs of points whose order in y the order in x tells; pairs of equal x count half."""

    accuracy: float
    """NaN without pairs."""
    num_pairs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Regret:
    """The point chosen by the lowest x among some points, and the best one."""

    chosen: int
    """Index of the point; of several with the lowest x the worst, for nobody could have told."""
    best: int
    regret: float
    """y of the best minus y of the chosen; 0 when they are equally good."""


def ordering(x: Vector, y: Vector, *, groups: Groups | None = None, min_gap: float = 0.0) -> Ordering:
    """Pairwise ordering accuracy.

    Args:
        x: lower is better, [n].
        y: higher is better, [n].
        groups: where given, only pairs within a group are counted, [n].
        min_gap: only pairs whose y differ by more are counted.
    """
    if groups is None and min_gap == 0.0:
        return _ordering_of_all(x, y)
    right, counted = _pairs(x, y, groups, min_gap)
    num_pairs = int(counted.sum()) // 2
    accuracy = float((right * counted).sum() / counted.sum()) if num_pairs else float("nan")
    return Ordering(accuracy=accuracy, num_pairs=num_pairs)


def _ordering_of_all(x: Vector, y: Vector) -> Ordering:
    """Over all pairs without a table of pairs: those ordered oppositely in x and y, and half of those tied in x."""
    pairs = concordance(x, y)
    right, wrong, counted = (int(one.sum()) for one in (pairs.discordant, pairs.concordant, pairs.untied_y))
    accuracy = (right + (counted - right - wrong) / 2) / counted if counted else float("nan")
    return Ordering(accuracy=accuracy, num_pairs=counted // 2)


def ordering_of_counts(x: Vector, y: Vector, counts: Matrix, *, groups: Groups | None = None) -> Vector:
    """`ordering` of each resample, [r]; NaN where a resample holds no pair."""
    right, counted = _pairs(x, y, groups, 0.0)
    agreeing = ((counts @ (right * counted)) * counts).sum(axis=1)
    total = ((counts @ counted) * counts).sum(axis=1)
    return agreeing / np.where(total > 0, total, np.nan)


def _pairs(x: Vector, y: Vector, groups: Groups | None, min_gap: float) -> tuple[Matrix, Matrix]:
    """[n, n] twice: how right the order in x is (0, ½, 1), and which pairs are counted (0, 1)."""
    gap_x, gap_y = x[:, None] - x[None, :], y[:, None] - y[None, :]
    counted = np.abs(gap_y) > min_gap
    if groups is not None:
        counted &= groups[:, None] == groups[None, :]
    right = np.where(gap_x == 0, 0.5, (gap_x < 0) == (gap_y > 0))
    return right, counted.astype(np.float64)


def regret(x: Vector, y: Vector) -> Regret:
    """What taking the point of the lowest x loses against the best one.

    Args:
        x: lower is better, [n].
        y: higher is better, [n].
    """
    tied = np.flatnonzero(x == x.min())
    chosen, best = int(tied[np.argmin(y[tied])]), int(np.argmax(y))
    return Regret(chosen=chosen, best=best, regret=float(y[best] - y[chosen]))


def choice_by_length(x: Vector, y: Vector, pairs: Groups, lengths: Vector) -> tuple[Vector, Vector]:
    """Regret of the longest run and of the run of lowest x, for each pair of model and data with two lengths or more.

    Args:
        x: lower is better, [n].
        y: higher is better, [n].
        pairs: which model and data, [n].
        lengths: steps, [n].

    Returns:
        (regret of the longest, regret of the lowest x), [number of such pairs] each.
    """
    longest: list[float] = []
    lowest: list[float] = []
    for pair in np.unique(pairs):
        inside = np.flatnonzero(pairs == pair)
        if len(np.unique(lengths[inside])) < 2:
            continue
        last = inside[lengths[inside] == lengths[inside].max()]
        longest.append(float(y[inside].max() - y[last].mean()))
        lowest.append(regret(x[inside], y[inside]).regret)
    return np.array(longest), np.array(lowest)
