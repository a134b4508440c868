"""Pearson, Spearman, Kendall and the slope, on all bootstrap resamples at once.

A resample of ``n`` points is a vector of ``n`` counts (how often each point was drawn). Written with counts, every
coefficient of all resamples comes out of a few matrix products, without a loop over them:

- Pearson and the slope are weighted moments;
- Spearman is Pearson on mid-ranks, and the mid-ranks within a resample are ``counts @ M`` with ``M[i, j] = 1`` where
  ``x_i < x_j`` and ``0.5`` where they tie (a constant shift of the usual ranks, which a correlation does not see);
- Kendall's tau-b is a ratio of quadratic forms ``c' S c`` in the pairwise sign matrices (Kendall 1945, ties as tau-b).

Shapes: ``n`` points, ``r`` resamples. Counts need not sum to n: the jackknife and resampled groups use the same code.
"""

import numpy as np
from numpy.typing import NDArray

from unveil_evalharness.statistics.ranks import concordance, midranks

__all__ = ["COEFFICIENTS", "coefficients", "coefficients_of_counts", "kendall", "pearson", "slope", "spearman"]

COEFFICIENTS = ("pearson", "spearman", "kendall", "slope")
"""Order of the columns that the functions below give."""

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def pearson(x: Vector, y: Vector) -> float:
    """Pearson's correlation of x [n] and y [n]; NaN where one of them is constant."""
    a, b = x - x.mean(), y - y.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.clip((a @ b) / np.sqrt(a @ a) / np.sqrt(b @ b), -1.0, 1.0))


def spearman(x: Vector, y: Vector) -> float:
    """Spearman's rank correlation of x [n] and y [n], ties by mid-ranks."""
    return pearson(midranks(x), midranks(y))


def kendall(x: Vector, y: Vector) -> float:
    """Kendall's tau-b of x [n] and y [n]."""
    return concordance(x, y).tau_b


def slope(x: Vector, y: Vector) -> float:
    """Least-squares slope of y [n] on x [n]."""
    a = x - x.mean()
    return float((a @ (y - y.mean())) / (a @ a))


def coefficients(x: Vector, y: Vector) -> Vector:
    """All four of one sample, in the order of `COEFFICIENTS`, [4]."""
    return np.array([pearson(x, y), spearman(x, y), kendall(x, y), slope(x, y)])


def coefficients_of_counts(x: Vector, y: Vector, counts: Matrix) -> Matrix:
    """All four of each resample.

    Args:
        x: [n].
        y: [n].
        counts: how often each point was drawn, [r, n].

    Returns:
        [r, 4] in the order of `COEFFICIENTS`; NaN in a row whose x or y is constant.
    """
    below_x, below_y = _precedence(x), _precedence(y)
    sign_x, sign_y = below_x - below_x.T, below_y - below_y.T
    usable = ~(_constant_within(x, counts) | _constant_within(y, counts))
    drawn = counts[usable]
    straight, steepness = _weighted_pearson(x, y, drawn)
    ranked, _ = _weighted_pearson(drawn @ below_x, drawn @ below_y, drawn)
    result = np.full((len(counts), len(COEFFICIENTS)), np.nan)
    result[usable] = np.column_stack([straight, ranked, _weighted_kendall(sign_x, sign_y, drawn), steepness])
    return result


def _precedence(values: Vector) -> Matrix:
    """[n, n]: 1 where value i is below value j, 0.5 where they tie; ``counts @ this`` are a resample's mid-ranks."""
    return (values[:, None] < values[None, :]) + 0.5 * (values[:, None] == values[None, :])


def _constant_within(values: Vector, counts: Matrix) -> NDArray[np.bool_]:
    """[r]: True where a resample holds one distinct value only."""
    highest = np.where(counts > 0, values, -np.inf).max(axis=1)
    lowest = np.where(counts > 0, values, np.inf).min(axis=1)
    return highest == lowest


def _weighted_pearson(x: Vector | Matrix, y: Vector | Matrix, counts: Matrix) -> tuple[Vector, Vector]:
    """Pearson [r] and slope of y on x [r]; ``x``, ``y`` are [n] or [r, n]. Two passes: offsets do not cancel."""
    total = counts.sum(axis=1, keepdims=True)
    x = x - (counts * x).sum(axis=1, keepdims=True) / total
    y = y - (counts * y).sum(axis=1, keepdims=True) / total
    weighted_x = counts * x
    covariance = (weighted_x * y).sum(axis=1)
    variance_x, variance_y = (weighted_x * x).sum(axis=1), (counts * y * y).sum(axis=1)
    return np.clip(covariance / np.sqrt(variance_x) / np.sqrt(variance_y), -1.0, 1.0), covariance / variance_x


def _weighted_kendall(sign_x: Matrix, sign_y: Matrix, counts: Matrix) -> Vector:
    balance = ((counts @ (sign_x * sign_y)) * counts).sum(axis=1)
    untied_x = ((counts @ np.abs(sign_x)) * counts).sum(axis=1)
    untied_y = ((counts @ np.abs(sign_y)) * counts).sum(axis=1)
    return np.clip(balance / np.sqrt(untied_x) / np.sqrt(untied_y), -1.0, 1.0)
