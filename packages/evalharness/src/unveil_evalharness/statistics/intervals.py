"""Intervals: percentile and BCa bootstrap, normal, Wilson; with the quantiles they need, by formula.

The quantile functions are written here, on the standard library, because importing scipy's would take longer than the
whole of `evalharness correlate`; the tests hold them against scipy's.
"""

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Interval",
    "bca_interval",
    "normal_interval",
    "percentile_interval",
    "student_t_quantile",
    "wilson_interval",
]

Vector = NDArray[np.float64]
_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """From ``low`` to ``high``."""

    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether a value lies outside."""
        return value < self.low or value > self.high


def percentile_interval(resampled: Vector, confidence: float) -> Interval | None:
    """Quantiles of the resampled values [r] (Efron 1979); None when fewer than half of them are numbers."""
    values = resampled[np.isfinite(resampled)]
    if 2 * len(values) < len(resampled) or not len(values):
        return None
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return Interval(low=float(low), high=float(high))


def bca_interval(value: float, resampled: Vector, left_out: Vector, confidence: float) -> Interval | None:
    """Bias-corrected and accelerated interval (Efron 1987, J. Am. Stat. Assoc. 82, 171).

    The bias correction z0 comes from the share of resamples below the value (ties count half), the acceleration from
    the skewness of the jackknife.

    Args:
        value: on the given sample.
        resampled: on each resample, [r].
        left_out: on the sample without each point (or group), [n].
        confidence: level, such as 0.95.

    Returns:
        None where it is not defined: too few numbers among the resamples or the jackknife, or all of them on one side.
    """
    values, jackknife = resampled[np.isfinite(resampled)], left_out[np.isfinite(left_out)]
    if 2 * len(values) < len(resampled) or len(jackknife) < 2 or not len(values):
        return None
    below = float((values < value).mean() + 0.5 * (values == value).mean())
    if not 0.0 < below < 1.0:
        return None
    bias = _NORMAL.inv_cdf(below)
    distance = jackknife.mean() - jackknife
    spread = float((distance**2).sum())
    acceleration = 0.0 if spread == 0.0 else float((distance**3).sum()) / (6.0 * spread**1.5)
    tail = _NORMAL.inv_cdf((1.0 - confidence) / 2.0)
    ends: list[float] = []
    for quantile in (tail, -tail):
        shifted = bias + quantile
        scale = 1.0 - acceleration * shifted
        if scale <= 0.0:
            return None
        ends.append(_NORMAL.cdf(bias + shifted / scale))
    low, high = np.quantile(values, ends)
    return Interval(low=float(low), high=float(high))


def normal_interval(value: float, standard_error: float, confidence: float) -> Interval:
    """Value ± z standard errors."""
    reach = _NORMAL.inv_cdf(0.5 + confidence / 2.0) * standard_error
    return Interval(low=value - reach, high=value + reach)


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Interval of a share (Wilson 1927); good at few trials and near 0 and 1. Without trials it is [0, 1]."""
    if trials == 0:
        return Interval(low=0.0, high=1.0)
    z = _NORMAL.inv_cdf(0.5 + confidence / 2.0)
    share, shrink = successes / trials, 1.0 + z * z / trials
    middle = (share + z * z / (2 * trials)) / shrink
    reach = z * math.sqrt(share * (1.0 - share) / trials + z * z / (4 * trials * trials)) / shrink
    return Interval(low=max(0.0, middle - reach), high=min(1.0, middle + reach))


@cache
def student_t_quantile(probability: float, degrees: int | float) -> float:
    """Quantile of Student's t, by bisection of its distribution function; accurate to 1e-9.

    Args:
        probability: between 0 and 1.
        degrees: of freedom, above 0.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0.0 < probability < 1.0 or degrees <= 0:
        raise ValueError(f"got probability={probability}, degrees={degrees}; need 0 < probability < 1 and degrees > 0")
    if probability < 0.5:
        return -student_t_quantile(1.0 - probability, degrees)
    low, high = 0.0, 2.0
    while _student_t_cdf(high, degrees) < probability:
        high *= 2.0
    for _ in range(200):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _student_t_cdf(middle, degrees) < probability else (low, middle)
        if high - low < 1e-11 * high:
            break
    return (low + high) / 2.0


def _student_t_cdf(value: float, degrees: int | float) -> float:
    """For value >= 0."""
    return 1.0 - 0.5 * _incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + value * value))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function by its continued fraction (Abramowitz and Stegun 26.5.8)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    fraction = 1.0  # evaluated from its tail, where it no longer matters what stands there
    for step in range(200, 0, -1):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1.0 + term / fraction
    return front / (a * fraction)
