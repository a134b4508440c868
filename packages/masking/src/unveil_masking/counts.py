"""How many of `total` mask units are hidden: exact arithmetic, so that no float accident changes a count unasked.

A ratio is read as the shortest decimal that prints as it: 0.9 means 9/10, not the nearest binary fraction
0.90000000000000002220. `int(100 * (1 - 0.9))` keeps 9 of 100 in floating point; `floor_keep` keeps 10. To repeat a
run of such code number by number, ask for `float_floor_keep`.

| rounding           | rule                                      | where it comes from                          |
|--------------------|-------------------------------------------|----------------------------------------------|
| `floor_keep`       | kept = floor(total · (1 − ratio))         | MAE and FLIP: 0.75 of 196 tokens keeps 49    |
| `ceil_hidden`      | hidden = ceil(total · ratio)              | SimMIM: 0.6 of 6×6 units hides 22            |
| `floor_hidden`     | hidden = floor(total · ratio)             | VideoMAE: 0.9 of 196 places hides 176        |
| `float_floor_keep` | kept = int(total * (1 - ratio)) in floats | the code of MAE: 0.9 of 100 tokens hides 91  |

In exact arithmetic the first two are the same number, since total − ⌊total·(1 − r)⌋ = ⌈total·r⌉. They differ in the
papers' code only through floating point. Both names are kept because a run is recorded under its paper's rule.
"""

from fractions import Fraction
from typing import Literal, get_args

from unveil_masking.errors import RatioError

__all__ = ["Rounding", "check_ratio", "exact_ratio", "floor_share", "num_hidden"]

Rounding = Literal["floor_keep", "ceil_hidden", "floor_hidden", "float_floor_keep"]


def exact_ratio(ratio: float) -> Fraction:
    """The ratio as the shortest decimal that prints as it, exactly: `exact_ratio(0.9) == Fraction(9, 10)`."""
    return Fraction(*_decimal(ratio))


def floor_share(total: int, ratio: float) -> int:
    """⌊total · ratio⌋ with the exact ratio, in Python integers, which a compiler takes for constants."""
    numerator, denominator = _decimal(ratio)
    return total * numerator // denominator


def _decimal(ratio: float) -> tuple[int, int]:
    """Numerator and denominator (a power of ten) of the shortest decimal that prints as `ratio`, at least 0."""
    mantissa, _, exponent = str(ratio).partition("e")
    whole, _, fraction = mantissa.partition(".")
    power = int(exponent or "0") - len(fraction)
    return int(whole + fraction) * 10 ** max(power, 0), 10 ** max(-power, 0)


def check_ratio(ratio: float, rounding: Rounding) -> None:
    """Refuse a ratio outside [0, 1) and an unknown rounding rule.

    Raises:
        RatioError: with the allowed values.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio < 1:
        raise RatioError(
            f"ratio={ratio!r} is not a number in [0, 1). It is the share of tokens to hide; "
            "0 hides none, and at least one token must stay visible."
        )
    if rounding not in get_args(Rounding):
        raise RatioError(f"rounding={rounding!r} is unknown. Allowed: {', '.join(get_args(Rounding))}.")


def num_hidden(total: int, ratio: float, rounding: Rounding) -> int:
    """Number of hidden units among `total` (tokens, or the larger units of `UnitMask`).

    Args:
        total: number of units, at least 1.
        ratio: share to hide, in [0, 1).
        rounding: which rule of the table above.

    Raises:
        RatioError: the ratio or the rule is illegal, or no unit would stay visible.
    """
    check_ratio(ratio, rounding)
    numerator, denominator = _decimal(ratio)
    if rounding == "floor_keep":
        hidden = total - total * (denominator - numerator) // denominator
    elif rounding == "ceil_hidden":
        hidden = -(-total * numerator // denominator)
    elif rounding == "floor_hidden":
        hidden = floor_share(total, ratio)
    else:
        hidden = total - int(total * (1 - ratio))  # IEEE double arithmetic, the same on every machine
    if hidden == total:
        raise RatioError(
            f"ratio={ratio!r} with rounding={rounding!r} hides all {total} units of this grid, but one must stay "
            f"visible. Use a ratio of at most {total - 1}/{total} here, or a grid with more units."
        )
    return hidden
