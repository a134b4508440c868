"""Monotone regression by pooling adjacent violators."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_decreasing", "predict_between"]

Vector = NDArray[np.float64]


def fit_decreasing(x: Vector, y: Vector) -> tuple[Vector, Vector]:
    """The non-increasing function of x that is nearest to y in squares (Ayer et al. 1955).

    Args:
        x: [n]; points of equal x are averaged first.
        y: [n].

    Returns:
        (distinct x in rising order, fitted values), [m] each.
    """
    knots, inverse, sizes = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, weights=y) / sizes
    blocks: list[tuple[float, int, int]] = []  # mean, weight, number of knots
    for mean, size in zip(means.tolist(), sizes.tolist(), strict=True):
        block = (mean, size, 1)
        while blocks and blocks[-1][0] < block[0]:
            value, weight, width = blocks.pop()
            total = weight + block[1]
            block = ((value * weight + block[0] * block[1]) / total, total, width + block[2])
        blocks.append(block)
    return knots, np.repeat([value for value, _, _ in blocks], [width for _, _, width in blocks])


def predict_between(knots: Vector, fitted: Vector, x: Vector) -> Vector:
    """Straight lines between the knots, constant beyond the outermost, [len(x)]."""
    return np.interp(x, knots, fitted)
