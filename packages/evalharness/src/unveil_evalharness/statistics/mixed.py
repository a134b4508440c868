"""A linear model with a random intercept per group, by restricted maximum likelihood.

``y = X b + u_g + e`` with ``u ~ N(0, θ σ²)`` and ``e ~ N(0, σ²)``. For a given θ the covariance of a group of m points
is σ² (I + θ 1 1'), whose inverse is (I - θ / (1 + m θ) 1 1') / σ², so b and σ² follow by least squares and what remains
is one number to search (Laird and Ware 1982; Pinheiro and Bates 2000, section 2.2). Shapes: n points, k columns.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["RandomIntercept", "fit_random_intercept"]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Groups = NDArray[np.int64]

_LOG_RATIO_RANGE = (-12.0, 12.0)
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomIntercept:
    """A fitted model."""

    coefficients: Vector
    """b, [k]."""
    covariance: Matrix
    """Of b, [k, k]."""
    residual_variance: float
    """σ²."""
    group_variance: float
    """θ σ²; 0 when the groups differ no more than chance."""
    num_groups: int

    def new_group_variance(self, design: Matrix) -> Vector:
        """Variance of a new point of an unseen group about its prediction, [m] for a design [m, k]."""
        return self.residual_variance + self.group_variance + np.einsum("ij,jk,ik->i", design, self.covariance, design)


def fit_random_intercept(y: Vector, design: Matrix, groups: Groups) -> RandomIntercept:
    """Fits by restricted maximum likelihood.

    Args:
        y: [n].
        design: columns of X with its intercept, of full rank, [n, k]; n > k.
        groups: group of each point, any integers, [n].
    """
    _, labels = np.unique(groups, return_inverse=True)
    low, high = _LOG_RATIO_RANGE
    best = min(_search(y, design, labels, low, high), -math.inf, key=lambda value: _criterion(y, design, labels, value))
    ratio = math.exp(best)
    inner, solution, squares = _solve(y, design, labels, ratio)
    variance = squares / (len(y) - design.shape[1])
    return RandomIntercept(
        coefficients=solution,
        covariance=variance * np.linalg.inv(inner),
        residual_variance=variance,
        group_variance=ratio * variance,
        num_groups=int(labels.max()) + 1,
    )


def _search(y: Vector, design: Matrix, labels: Groups, low: float, high: float) -> float:
    """Logarithm of θ with the lowest criterion: the best of a grid, then golden section around it."""
    grid = np.linspace(low, high, 13)
    start = int(np.argmin([_criterion(y, design, labels, float(value)) for value in grid]))
    low, high = float(grid[max(0, start - 1)]), float(grid[min(len(grid) - 1, start + 1)])
    while high - low > 1e-4:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if _criterion(y, design, labels, left) < _criterion(y, design, labels, right):
            high = right
        else:
            low = left
    return (low + high) / 2.0


def _criterion(y: Vector, design: Matrix, labels: Groups, log_ratio: float) -> float:
    """Minus twice the restricted log-likelihood with σ² profiled out, up to a constant."""
    ratio = math.exp(log_ratio)
    inner, _, squares = _solve(y, design, labels, ratio)
    degrees = len(y) - design.shape[1]
    spread = float(np.log1p(np.bincount(labels) * ratio).sum())
    return degrees * math.log(max(squares, 1e-300) / degrees) + spread + float(np.linalg.slogdet(inner)[1])


def _solve(y: Vector, design: Matrix, labels: Groups, ratio: float) -> tuple[Matrix, Vector, float]:
    """(X' V⁻¹ X, b, weighted squared residuals) with V in units of σ²."""
    sizes = np.bincount(labels)
    shrink = ratio / (1.0 + sizes * ratio)
    sums_x = np.stack([np.bincount(labels, weights=column) for column in design.T], axis=1)
    sums_y = np.bincount(labels, weights=y)
    inner = design.T @ design - sums_x.T @ (shrink[:, None] * sums_x)
    cross = design.T @ y - sums_x.T @ (shrink * sums_y)
    solution = np.asarray(np.linalg.solve(inner, cross), dtype=np.float64)
    left = y - design @ solution
    sums_left = np.bincount(labels, weights=left)
    # Where the line goes through all points, rounding alone is left, and may be below 0.
    return inner, solution, max(0.0, float(left @ left - (shrink * sums_left**2).sum()))
