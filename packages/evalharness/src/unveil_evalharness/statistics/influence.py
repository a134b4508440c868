"""How much each point moves a coefficient, for standard errors of large samples in O(n log n).

The infinitesimal jackknife (Jaeckel 1972; Efron 1982, chapter 6): a coefficient's influence function at each point has
mean zero, and its sum of squares over n² is the variance that the bootstrap converges to. Summed over groups before
squaring, it is the variance of the cluster bootstrap. Shapes: n points.
"""

import numpy as np
from numpy.typing import NDArray

from unveil_evalharness.statistics.coefficients import pearson, slope, spearman
from unveil_evalharness.statistics.ranks import concordance, midranks

__all__ = ["influences", "standard_errors"]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Groups = NDArray[np.int64]


def influences(x: Vector, y: Vector) -> Matrix:
    """Influence of each point on Pearson, Spearman, Kendall and the slope, [n, 4]; columns have mean zero."""
    return np.column_stack([_on_pearson(x, y), _on_spearman(x, y), _on_kendall(x, y), _on_slope(x, y)])


def standard_errors(influence: Matrix, groups: Groups | None = None) -> Vector:
    """Standard errors of the coefficients, [4].

    Args:
        influence: [n, 4].
        groups: group of each point, integers from 0, [n]; None for independent points.
    """
    n = len(influence)
    if groups is not None:
        summed = np.zeros((int(groups.max()) + 1, influence.shape[1]))
        np.add.at(summed, groups, influence)
        influence = summed
    return np.sqrt((influence**2).sum(axis=0)) / n


def _on_pearson(x: Vector, y: Vector) -> Vector:
    a, b = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    return a * b - pearson(x, y) * (a * a + b * b) / 2.0


def _on_slope(x: Vector, y: Vector) -> Vector:
    a = x - x.mean()
    return a * (y - y.mean() - slope(x, y) * a) / x.var()


def _on_spearman(x: Vector, y: Vector) -> Vector:
    """Spearman is C / sqrt(Vx Vy) in mid-distribution values a, b; each of the three is differentiated.

    A point adds its own product a b, and it lifts the ranks of the points above it: the two means of the partner's
    value over those points. The variances of ranks depend on ties alone: (1 - sum of cubed shares) / 12.
    """
    n = len(x)
    a, b = (midranks(x) - 0.5) / n - 0.5, (midranks(y) - 0.5) / n - 0.5
    covariance, variance_x, variance_y = float((a * b).mean()), float(a.var()), float(b.var())
    on_covariance = a * b + _mean_above(x, b) + _mean_above(y, a) - 3.0 * covariance
    relative = _on_rank_variance(x) / variance_x + _on_rank_variance(y) / variance_y
    scale = np.sqrt(variance_x * variance_y)
    return on_covariance / scale - spearman(x, y) * relative / 2.0


def _mean_above(values: Vector, partner: Vector) -> Vector:
    """For each point, the partner summed over the points above it (equal ones half), over n."""
    unique, inverse = np.unique(values, return_inverse=True)
    per_value = np.bincount(inverse, weights=partner, minlength=len(unique))
    above = per_value[::-1].cumsum()[::-1] - per_value / 2.0
    return above[inverse] / len(values)


def _on_rank_variance(values: Vector) -> Vector:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    shares = counts / len(values)
    return -((shares[inverse] ** 2) - (shares**3).sum()) / 4.0


def _on_kendall(x: Vector, y: Vector) -> Vector:
    """tau-b is S / sqrt(Tx Ty) of three pair means; a point's pairs move each by twice their excess."""
    pairs = concordance(x, y)
    balance = (pairs.concordant - pairs.discordant).astype(np.float64)
    untied_x, untied_y = pairs.untied_x.astype(np.float64), pairs.untied_y.astype(np.float64)
    scale = float(np.sqrt(untied_x.mean() * untied_y.mean()))
    relative = (untied_x / untied_x.mean() - 1.0) + (untied_y / untied_y.mean() - 1.0)
    return 2.0 * (balance - balance.mean()) / scale - pairs.tau_b * relative
