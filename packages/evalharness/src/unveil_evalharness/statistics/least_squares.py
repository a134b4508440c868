"""Least squares on all resamples at once, and what rests on it: partial correlation, R² and what is left of groups.

Shapes: n points, k columns, r resamples. Resamples are counts, see `unveil_evalharness.statistics.resampling`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from unveil_evalharness.statistics.coefficients import pearson
from unveil_evalharness.statistics.ranks import midranks

__all__ = [
    "demeaned",
    "indicators",
    "least_squares_of_counts",
    "partial_correlation",
    "partial_of_counts",
    "r_squared",
    "residuals",
]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Groups = NDArray[np.int64]

_NOTHING = 1e-9
"""Share of a variance that counts as rounding."""


def indicators(groups: Groups) -> Matrix:
    """One 0/1 column per group but the first, [n, g - 1]: a group as a control."""
    return (groups[:, None] == np.arange(1, int(groups.max()) + 1)[None, :]).astype(np.float64)


def residuals(values: Vector, controls: Matrix) -> Vector:
    """What an intercept and the controls [n, k] leave of the values [n]."""
    design = np.column_stack([np.ones(len(values)), controls])
    solution, *_ = np.linalg.lstsq(design, values, rcond=None)
    return values - design @ solution


def r_squared(values: Vector, predictors: Matrix) -> float:
    """Share of the variance of the values [n] that an intercept and the predictors [n, k] explain."""
    left, total = residuals(values, predictors), values - values.mean()
    return float(1.0 - (left @ left) / (total @ total))


def demeaned(values: Vector, groups: Groups) -> Vector:
    """Values minus the mean of their group, [n]."""
    sizes = np.bincount(groups)
    return values - (np.bincount(groups, weights=values) / np.maximum(sizes, 1))[groups]


def partial_correlation(x: Vector, y: Vector, controls: Matrix, *, of_ranks: bool = False) -> float:
    """Correlation of x [n] and y [n] after the controls [n, k] are regressed out of both; NaN if that leaves nothing.

    Args:
        x: [n].
        y: [n].
        controls: [n, k].
        of_ranks: take mid-ranks of all columns first (partial Spearman).
    """
    if of_ranks:
        x, y = midranks(x), midranks(y)
        controls = np.column_stack([midranks(column) for column in controls.T])
    left = residuals(x, controls), residuals(y, controls)
    # What is left of a column that the controls explain is rounding, and correlates with anything.
    for rest, whole in zip(left, (x, y), strict=True):
        if rest @ rest <= _NOTHING * float(np.square(whole - whole.mean()).sum()):
            return math.nan
    return pearson(*left)


def partial_of_counts(x: Vector, y: Vector, controls: Matrix, counts: Matrix) -> Vector:
    """`partial_correlation` of each resample, [r]; NaN where the controls leave nothing of x or y."""
    pair = np.column_stack([_standardised(x), _standardised(y)])
    design = np.column_stack([np.ones(len(x)), *(_standardised(column) for column in controls.T)])
    inner = _moments(design, design, counts)
    cross, outer = _moments(design, pair, counts), _moments(pair, pair, counts)
    left = outer - np.swapaxes(cross, 1, 2) @ np.linalg.pinv(inner, rcond=1e-10, hermitian=True) @ cross
    tiny = _NOTHING * outer.diagonal(axis1=1, axis2=2)
    variance = np.where(left.diagonal(axis1=1, axis2=2) > tiny, left.diagonal(axis1=1, axis2=2), np.nan)
    return np.clip(left[:, 0, 1] / np.sqrt(variance[:, 0] * variance[:, 1]), -1.0, 1.0)


def least_squares_of_counts(values: Vector, design: Matrix, counts: Matrix) -> Matrix:
    """Least-squares coefficients of each resample, [r, k]; smallest ones where the columns depend on each other."""
    inner = _moments(design, design, counts)
    cross = _moments(design, values[:, None], counts)
    return (np.linalg.pinv(inner, rcond=1e-10, hermitian=True) @ cross)[:, :, 0]


def _moments(left: Matrix, right: Matrix, counts: Matrix) -> NDArray[np.float64]:
    """Weighted sums of products, [r, k of left, k of right]."""
    products = (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)
    return (counts @ products).reshape(len(counts), left.shape[1], right.shape[1])


def _standardised(values: Vector) -> Vector:
    spread = values.std()
    return (values - values.mean()) / (spread if spread > 0 else 1.0)
