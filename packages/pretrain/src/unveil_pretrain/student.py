"""Student's t distribution by its finite series (Abramowitz and Stegun, 26.7.3 and 26.7.4): no SciPy needed."""

import math
from statistics import NormalDist

from unveil_pretrain.errors import ConfigError

__all__ = ["student_quantile", "student_tail"]

# Above it the series is long, and the expansion below is within 1 % of every tail above 1e-7.
_MANY = 400


def student_tail(value: float, degrees: int) -> float:
    """The probability that a t variable with so many degrees of freedom (≥ 1) exceeds `value`.

    Below 1e-12 the result is rounding.
    """
    if degrees < 1:
        raise ConfigError(f"a t distribution has at least one degree of freedom, not {degrees}; give more values")
    if value < 0.0:
        return 1.0 - student_tail(-value, degrees)
    if degrees > _MANY:
        return NormalDist().cdf(-_normal_of(value, degrees))
    angle = math.atan2(value, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0 if degrees == 1 else term
    for k in range(2 + odd, degrees - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    inside = 2.0 / math.pi * (angle + sine * total) if odd else sine * total
    return max(0.0, (1.0 - inside) / 2.0)


def student_quantile(tail: float, degrees: int) -> float:
    """The value that a t variable exceeds with probability `tail`, in (0, 0.5]."""
    if not 0.0 < tail <= 0.5:
        raise ConfigError(f"the tail probability is {tail}; give a number in (0, 0.5]")
    low, high = 0.0, 1.0
    while student_tail(high, degrees) > tail:
        low, high = high, 2.0 * high
    for _ in range(80):
        middle = (low + high) / 2.0
        low, high = (middle, high) if student_tail(middle, degrees) > tail else (low, middle)
    return high


def _normal_of(value: float, degrees: int) -> float:
    """The normal variable with the same tail (Abramowitz and Stegun, 26.7.8)."""
    return value * (1.0 - 1.0 / (4.0 * degrees)) / math.sqrt(1.0 + value**2 / (2.0 * degrees))
