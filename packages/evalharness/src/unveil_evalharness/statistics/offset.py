"""Do runs of another data source sit at another loss for the same score? Shapes: n points, r resamples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unveil_evalharness.statistics.intervals import Interval, percentile_interval
from unveil_evalharness.statistics.least_squares import least_squares_of_counts

__all__ = ["Matched", "Offset", "matched_offset", "source_offset"]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Groups = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Offset:
    """How much higher x is in one source than in the reference at equal y."""

    value: float
    interval: Interval | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Matched:
    """Mean differences of runs that differ in their source alone."""

    num_pairs: int
    difference_x: float
    difference_y: float
    """Of the source minus the reference."""


def source_offset(x: Vector, y: Vector, in_source: Vector, counts: Matrix, *, confidence: float = 0.95) -> Offset:
    """The coefficient of the source in ``x = a + b y + offset · source``, with a percentile interval.

    Args:
        x: loss, [n].
        y: metric, [n].
        in_source: 1 for points of the source, 0 for those of the reference, [n].
        counts: resamples, [r, n].
        confidence: level of the interval.
    """
    design = np.column_stack([np.ones(len(x)), (y - y.mean()) / y.std(), in_source])
    value = float(least_squares_of_counts(x, design, np.ones((1, len(x))))[0, 2])
    both = ((counts @ in_source) > 0) & ((counts @ (1.0 - in_source)) > 0)
    resampled = np.where(both, least_squares_of_counts(x, design, counts)[:, 2], np.nan)
    return Offset(value=value, interval=percentile_interval(resampled, confidence))


def matched_offset(x: Vector, y: Vector, in_source: Vector, settings: Groups) -> Matched | None:
    """Mean difference over settings (model and length) that occur in both; None when there is none.

    Args:
        x: loss, [n].
        y: metric, [n].
        in_source: 1 for points of the source, 0 for those of the reference, [n].
        settings: what must be alike, [n].
    """
    differences = [
        (
            x[inside & (in_source == 1)].mean() - x[inside & (in_source == 0)].mean(),
            y[inside & (in_source == 1)].mean() - y[inside & (in_source == 0)].mean(),
        )
        for inside in (settings == setting for setting in np.unique(settings))
        if len(np.unique(in_source[inside])) == 2
    ]
    if not differences:
        return None
    of_x, of_y = np.mean(differences, axis=0)
    return Matched(num_pairs=len(differences), difference_x=float(of_x), difference_y=float(of_y))
