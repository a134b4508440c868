"""Ranks and concordant pairs in O(n log n), so that ten thousand points are no trouble. Numpy alone.

Shapes: n points. Ties share the mean of their ranks (mid-ranks).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Concordance", "concordance", "midranks", "num_below"]

Vector = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Concordance:
    """For each point, with how many of the others it forms which kind of pair, [n] each."""

    concordant: Counts
    """Ordered alike in x and in y."""
    discordant: Counts
    """Ordered oppositely."""
    untied_x: Counts
    """Of different x."""
    untied_y: Counts
    """Of different y."""

    @property
    def tau_b(self) -> float:
        """Kendall's tau-b (Kendall 1945): concordant minus discordant pairs over the pairs untied in x and in y."""
        balance = float((self.concordant - self.discordant).sum())
        return balance / float(np.sqrt(float(self.untied_x.sum()) * float(self.untied_y.sum())))


def midranks(values: Vector) -> Vector:
    """Ranks from 1 to n, [n]; equal values share their mean rank."""
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left")
    upto = np.searchsorted(ordered, values, side="right")
    return (below + upto + 1) / 2.0


def concordance(x: Vector, y: Vector) -> Concordance:
    """Concordant and discordant partners of each point.

    Args:
        x: [n].
        y: [n].
    """
    return Concordance(
        concordant=num_below(x, y) + num_below(-x, -y),
        discordant=num_below(x, -y) + num_below(-x, y),
        untied_x=len(x) - _num_equal(x),
        untied_y=len(y) - _num_equal(y),
    )


def num_below(x: Vector, y: Vector) -> Counts:
    """For each point, how many points are strictly smaller in both x and y, [n].

    Merge sort from below: in the order of x, every block of points counts the smaller y in the block to its left.
    Points of equal x are put in falling order of y, so that none of them counts another.
    """
    n = len(x)
    order = np.lexsort((-y, x))
    ranks = np.searchsorted(np.unique(y), y[order])  # integers, so that a block's number can be packed in front
    counts = np.zeros(n, dtype=np.int64)
    position = np.arange(n)
    width = 1
    while width < n:
        pair, is_right = position // (2 * width), (position // width) % 2 == 1
        keys = pair * (n + 1) + ranks
        left = np.sort(keys[~is_right])
        starts = np.searchsorted(left, pair[is_right] * (n + 1))
        counts[is_right] += np.searchsorted(left, keys[is_right]) - starts
        width *= 2
    result = np.empty(n, dtype=np.int64)
    result[order] = counts
    return result


def _num_equal(values: Vector) -> Counts:
    """How many points have each point's value, itself included, [n]."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[inverse]
