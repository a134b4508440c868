"""Resamples as counts: of single points, of whole groups, and all but one.

Points that come from one training run, or from models of one size, are not independent draws. Resampling whole groups
(the cluster bootstrap; Field and Welsh 2007) carries that dependence into the interval. Shapes: n points, g groups,
r resamples.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_counts", "draw_group_counts", "leave_out_counts"]

Matrix = NDArray[np.float64]
Groups = NDArray[np.int64]


def draw_counts(generator: np.random.Generator, num_resamples: int, n: int) -> Matrix:
    """How often each of ``n`` points is drawn in each resample, [r, n]; every row sums to ``n``."""
    drawn = generator.integers(0, n, size=(num_resamples, n))
    drawn += np.arange(num_resamples)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=num_resamples * n).reshape(num_resamples, n).astype(np.float64)


def draw_group_counts(generator: np.random.Generator, num_resamples: int, groups: Groups) -> Matrix:
    """As `draw_counts`, drawing as many whole groups as there are, with all their points.

    Args:
        generator: source of randomness.
        num_resamples: r.
        groups: group of each point, integers from 0 to g - 1, [n].

    Returns:
        [r, n]; points of one group have one count.
    """
    return draw_counts(generator, num_resamples, int(groups.max()) + 1)[:, groups]


def leave_out_counts(groups: Groups) -> Matrix:
    """Counts of the jackknife: row k leaves out the points of group k, [g, n]."""
    num_groups = int(groups.max()) + 1
    return (np.arange(num_groups)[:, None] != groups[None, :]).astype(np.float64)
