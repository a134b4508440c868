"""Paired 0/1 outcomes: McNemar's tests and Tango's interval, all functions of the discordant pairs.

`gains` items went from wrong to right, `losses` from right to wrong; the other pairs say nothing about the difference.
"""

import math

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

__all__ = ["cohens_h", "mcnemar_mid_p", "mcnemar_worse", "tango_bound", "tango_lower"]

_HALVINGS = 48


def mcnemar_mid_p(gains: int, losses: int) -> float:
    """Two-sided exact mid-p of McNemar's test (Fagerland, Lydersen and Laake 2013); 1 where gains equal losses."""
    discordant, fewer = gains + losses, min(gains, losses)
    if gains == losses:
        return 1.0
    up_to, exactly = stats.binom.cdf(fewer, discordant, 0.5), stats.binom.pmf(fewer, discordant, 0.5)
    return float(min(1.0, 2.0 * up_to - exactly))


def mcnemar_worse(gains: int, losses: int) -> float:
    """One-sided exact p that so many pairs, or more, were lost when a loss is as likely as a gain.

    The conditional test without mid-p: its false-alarm rate never exceeds the level, whatever the number of pairs.
    """
    return float(stats.binom.sf(losses - 1, gains + losses, 0.5))


def tango_bound(gains: int, losses: int, n: int, *, confidence: float, upper: bool = False) -> float:
    """One-sided confidence bound of the difference of two paired proportions; see `tango_lower`.

    Args:
        gains: pairs that went from 0 to 1.
        losses: pairs that went from 1 to 0.
        n: all pairs.
        confidence: of the one-sided bound, above one half.
        upper: the upper bound instead of the lower one.
    """
    if upper:
        return -tango_bound(losses, gains, n, confidence=confidence)
    return float(tango_lower(np.array([gains]), np.array([losses]), n, confidence=confidence)[0])


def tango_lower(
    gains: Int[np.ndarray, " k"], losses: Int[np.ndarray, " k"], n: int, *, confidence: float
) -> Float[np.ndarray, " k"]:
    """Lower bounds by inverting the score test (Tango 1998, equations 2 to 4), for k outcomes of n pairs each.

    They keep their level where outcomes hardly differ: without any discordant pair the bound is ``-z² / (n + z²)`` and
    not 0.
    """
    z = float(stats.norm.ppf(confidence))
    # The score falls as the hypothetical difference rises: it is 0 at the estimate and grows towards -1.
    low, high = np.full(len(gains), -1.0), (gains - losses) / n
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        beyond = _score(gains, losses, n, middle) > z
        low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
    return low


def _score(gains: np.ndarray, losses: np.ndarray, n: int, difference: np.ndarray) -> np.ndarray:
    a = 2.0 * n
    b = -gains - losses + (2.0 * n - gains + losses) * difference
    c = -losses * difference * (1.0 - difference)
    lost = (np.sqrt(np.maximum(0.0, b * b - 4.0 * a * c)) - b) / (2.0 * a)
    variance = n * (2.0 * lost + difference * (1.0 - difference))
    distance = gains - losses - n * difference
    return np.divide(
        distance, np.sqrt(np.maximum(variance, 0.0)), out=np.full_like(distance, np.inf), where=variance > 0
    )


def cohens_h(before: float, after: float) -> float:
    """Effect size of two proportions: the difference of ``2 asin sqrt(p)`` (Cohen 1988, section 6.2)."""
    return 2.0 * math.asin(math.sqrt(min(1.0, max(0.0, after)))) - 2.0 * math.asin(
        math.sqrt(min(1.0, max(0.0, before)))
    )
