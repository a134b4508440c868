"""Does a longer run with a lower loss score higher, and one with a higher loss lower? The two sides, told apart.

A step goes from one run to the next longer one of the same model and data. Falling steps say whether good news can be
believed, rising ones whether bad news can. Shapes: n points.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unveil_evalharness.statistics.intervals import Interval, wilson_interval

__all__ = ["Side", "Step", "Steps", "steps"]

Vector = NDArray[np.float64]
Groups = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """From a run to the next longer one of its pair, by index."""

    shorter: int
    longer: int
    change_x: float
    change_y: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """The steps on which x fell, or those on which it rose."""

    num_steps: int
    num_gained: int
    """On how many y rose."""
    num_lost: int
    """On how many y fell; a step may do neither."""
    gained: Interval
    """Share that gained, Wilson."""
    lost: Interval
    """Share that lost, Wilson."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """All steps and their two sides."""

    falling: Side
    rising: Side
    steps: tuple[Step, ...]
    p_value: float | None
    """Fisher's exact test, one-sided, of the falling steps' gaining no more often than the rising ones: longer runs
    may gain whatever x does. None where one side has no step. It takes the steps as independent."""


def steps(x: Vector, y: Vector, pairs: Groups, lengths: Vector, *, confidence: float = 0.95) -> Steps:
    """The steps between successive lengths of each pair; runs of one length (seeds) are averaged first.

    Args:
        x: loss, lower is better, [n].
        y: metric, higher is better, [n].
        pairs: which model and data, [n].
        lengths: steps of training, [n].
        confidence: level of the Wilson intervals.
    """
    order = np.lexsort((lengths, pairs))
    is_new = (np.diff(pairs[order]) != 0) | (np.diff(lengths[order]) != 0)
    marks = np.concatenate([[0], np.cumsum(is_new)])  # which (pair, length) each run in this order is of
    sizes, first = np.bincount(marks), order[np.flatnonzero(np.concatenate([[True], is_new]))]
    mean_x, mean_y = (np.bincount(marks, weights=column[order]) / sizes for column in (x, y))
    follows = np.flatnonzero(pairs[first[1:]] == pairs[first[:-1]])
    found = [
        Step(
            shorter=int(first[mark]),
            longer=int(first[mark + 1]),
            change_x=float(mean_x[mark + 1] - mean_x[mark]),
            change_y=float(mean_y[mark + 1] - mean_y[mark]),
        )
        for mark in follows
    ]
    falling = _side([step for step in found if step.change_x < 0], confidence)
    rising = _side([step for step in found if step.change_x > 0], confidence)
    return Steps(falling=falling, rising=rising, steps=tuple(found), p_value=_p_value(falling, rising))


def _p_value(falling: Side, rising: Side) -> float | None:
    if not falling.num_steps or not rising.num_steps:
        return None
    num_gained = falling.num_gained + rising.num_gained
    ways = [
        math.comb(falling.num_steps, gained) * math.comb(rising.num_steps, num_gained - gained)
        for gained in range(falling.num_gained, min(falling.num_steps, num_gained) + 1)
    ]
    return sum(ways) / math.comb(falling.num_steps + rising.num_steps, num_gained)


def _side(found: list[Step], confidence: float) -> Side:
    gained, lost = sum(step.change_y > 0 for step in found), sum(step.change_y < 0 for step in found)
    return Side(
        num_steps=len(found),
        num_gained=gained,
        num_lost=lost,
        gained=wilson_interval(gained, len(found), confidence),
        lost=wilson_interval(lost, len(found), confidence),
    )
