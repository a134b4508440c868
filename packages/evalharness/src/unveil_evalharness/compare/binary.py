"""Paired 0/1 outcomes: McNemar's tests and Tango's interval, all functions of the discordant pairs.

`gains` items went from wrong to right, `losses` from right to wrong; the other pairs say nothing about the difference.
"""

import math
from typing import cast

from scipy import optimize, stats

__all__ = ["cohens_h", "mcnemar_mid_p", "mcnemar_worse", "tango_bound"]

_ROUNDING = 1e-12


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
    """One-sided confidence bound of the difference of two paired proportions (Tango 1998, equations 2 to 4).

    It inverts the score test, so that it keeps its level where the outcomes hardly differ: without any discordant pair
    the lower bound is ``-z² / (n + z²)`` and not 0.

    Args:
        gains: pairs that went from 0 to 1.
        losses: pairs that went from 1 to 0.
        n: all pairs.
        confidence: of the one-sided bound, above one half.
        upper: the upper bound instead of the lower one.
    """
    if upper:
        return -tango_bound(losses, gains, n, confidence=confidence)
    z = float(stats.norm.ppf(confidence))
    estimate = (gains - losses) / n
    if estimate <= -1.0:
        return -1.0

    def excess(difference: float) -> float:
        return _score(gains, losses, n, difference) - z

    # The score falls as the hypothetical difference rises: it is 0 at the estimate and grows without limit towards -1.
    if excess(-1.0 + _ROUNDING) <= 0:
        return -1.0
    return cast(float, optimize.brentq(excess, -1.0 + _ROUNDING, estimate, xtol=_ROUNDING))


def _score(gains: int, losses: int, n: int, difference: float) -> float:
    a = 2.0 * n
    b = -gains - losses + (2.0 * n - gains + losses) * difference
    c = -losses * difference * (1.0 - difference)
    lost = (math.sqrt(max(0.0, b * b - 4.0 * a * c)) - b) / (2.0 * a)
    variance = n * (2.0 * lost + difference * (1.0 - difference))
    distance = gains - losses - n * difference
    if distance == 0.0:
        return 0.0
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def cohens_h(before: float, after: float) -> float:
    """Effect size of two proportions: the difference of ``2 asin sqrt(p)`` (Cohen 1988, section 6.2)."""
    return 2.0 * math.asin(math.sqrt(min(1.0, max(0.0, after)))) - 2.0 * math.asin(
        math.sqrt(min(1.0, max(0.0, before)))
    )
