"""Noise of seeds: how much it hides of a correlation, and which differences mean nothing.

Measured with noise, two columns correlate less than they do (Spearman 1904, Am. J. Psychol. 15, 72): the observed
correlation is the true one times the root of both reliabilities, the share of each column's variance that is not noise.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["Noise", "disattenuated", "noise_floor", "reliability", "replicate_noise"]

Vector = NDArray[np.float64]
Groups = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Spread of repetitions that differ in their seed only."""

    standard_deviation: float
    """Of one run, pooled over the repeated settings."""
    degrees: int
    """Repetitions beyond the first, summed."""


def replicate_noise(values: Vector, settings: Groups) -> Noise | None:
    """Pooled standard deviation within settings; None when no setting was repeated.

    Args:
        values: one per run, [n].
        settings: runs that differ in seed only share one, [n].
    """
    _, labels = np.unique(settings, return_inverse=True)
    sizes = np.bincount(labels)
    degrees = len(values) - len(sizes)
    if not degrees:
        return None
    left = values - (np.bincount(labels, weights=values) / sizes)[labels]
    return Noise(standard_deviation=math.sqrt(float(left @ left) / degrees), degrees=degrees)


def reliability(values: Vector, noise_variance: float) -> float:
    """Share of the variance of the values [n] that is not noise; not above 1, and below 0 where noise is all."""
    return min(1.0, 1.0 - noise_variance / float(values.var(ddof=1)))


def disattenuated(correlation: float, reliability_x: float, reliability_y: float) -> float | None:
    """The correlation without the noise, within [-1, 1]; None where a column is all noise."""
    if reliability_x <= 0.0 or reliability_y <= 0.0:
        return None
    return max(-1.0, min(1.0, correlation / math.sqrt(reliability_x * reliability_y)))


def noise_floor(standard_deviation: float, confidence: float = 0.95) -> float:
    """The difference of two single runs that noise alone exceeds with probability 1 - confidence."""
    return NormalDist().inv_cdf(0.5 + confidence / 2.0) * math.sqrt(2.0) * standard_deviation
