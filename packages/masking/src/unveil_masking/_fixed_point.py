"""Logarithms and Gumbel noise in integer arithmetic, so that no difference between math libraries changes a mask.

`exp` and `log` of NumPy, torch on CPU and torch on CUDA differ in their last bits, and a compiler may fuse a
multiplication with an addition. Here all is int64; the only floating-point step is the exact conversion of an integer
below 2⁵³, whose exponent field is read off. Values are fixed point: an int64 `v` stands for v · 2⁻²⁴.

    ln x = e · ln 2 + 2 · artanh(s),  x = m · 2ᵉ with m in (1/√2, √2],  s = (m − 1) / (m + 1),  |s| < 0.172

and artanh(s) = s + s³/3 + s⁵/5 + … up to s¹³/13, which leaves less than 2⁻⁴⁰.
"""

import math
from typing import Any

import numpy as np

from unveil_masking._arrays import library

__all__ = ["EXP_BITS", "FRACTION_BITS", "exp", "gumbel", "log", "log_of"]

FRACTION_BITS = 24
"""A fixed-point value is an integer times 2 to the power of minus this."""

EXP_BITS = 30
"""Arguments and results of `exp` are integers times 2 to the power of minus this."""

_INNER_BITS = 40
_LN2 = 762123384786  # ln 2 in units of 2⁻⁴⁰
_LN2_PRECISE = 799144290325165979  # ln 2 in units of 2⁻⁶⁰
_ROOT2 = 6074000999  # √2 in units of 2⁻³²
_ONE = 2**30


def log(numbers: Any) -> Any:
    """Natural logarithm of integers.

    Args:
        numbers: int64 array with values in [1, 2⁵³); beyond 33 bits the rest is cut off (a relative error of 2⁻³²).

    Returns:
        int64 array of fixed-point values, at most 2⁻²³ below the logarithm.
    """
    return _log_inner(numbers) >> (_INNER_BITS - FRACTION_BITS)


def log_of(number: float) -> int:
    """Natural logarithm of a plain number in [2⁻²⁰, 2²⁰], as an integer times 2⁻³⁰, rounded down.

    Python integers alone: the same on every machine, and a constant to a compiler.
    """
    scaled = round(number * 2**32)
    near = 1 << scaled.bit_length() - 1
    near <<= scaled * scaled > 2 * near * near
    s = (scaled - near << 60) // (scaled + near)
    power, series = s, 0
    for odd in range(1, 41, 2):
        series += power // odd
        power = (power * s * s) >> 120
    return (2 * series + (near.bit_length() - 33) * _LN2_PRECISE) >> (60 - EXP_BITS)


def exp(exponents: Any) -> Any:
    """Exponential of fixed-point numbers in [−1.4, 1.4], by its Taylor series up to the tenth power.

    Args:
        exponents: int64 array, in units of 2⁻³⁰.

    Returns:
        int64 array in units of 2⁻³⁰, within 1e-6 of the exponential.
    """
    value = exponents * 0 + _ONE // math.factorial(10)
    for power in range(9, -1, -1):
        value = ((value * exponents) >> EXP_BITS) + _ONE // math.factorial(power)
    return value


def gumbel(words: Any) -> Any:
    """Standard Gumbel noise, −ln(−ln u), one value for each 32-bit word of `noise`.

    Adding it to log weights and taking the k largest draws k without replacement with those weights (Gumbel top-k,
    Kool et al., arXiv:1903.06059, section 2).

    Args:
        words: int64 array with values in [0, 2³²), uniformly distributed; u = 1 − (words + ½) · 2⁻³².

    Returns:
        int64 array of fixed-point values between −3.2 and 22.9, increasing as u does.
    """
    return -(_log_inner(_exponential(words)) - _INNER_BITS * _LN2) >> (_INNER_BITS - FRACTION_BITS)


def _exponential(words: Any) -> Any:
    """Exponential variates −ln u in units of 2⁻⁴⁰; precise in relative terms where they are small: the top of top-k."""
    return 33 * _LN2 - _log_inner(2**33 - (2 * words + 1))


def _log_inner(numbers: Any) -> Any:
    """Natural logarithm in units of 2⁻⁴⁰."""
    xp: Any = library(numbers)
    as_float = numbers.astype(np.float64) if xp is np else numbers.to(xp.float64)
    bits = as_float.view(xp.int64)  # exact: exponent field above 52 bits of mantissa
    exponent = (bits >> 52) - 1023
    mantissa = ((bits & (2**52 - 1)) >> 20) + 2**32
    above = xp.where(mantissa > _ROOT2, exponent * 0 + 1, exponent * 0)
    one = (above + 1) << 32  # 1 or 2: what m is near to
    numerator, denominator = mantissa - one, mantissa + one
    # 40 bits of the quotient in two steps, since numerator << 40 would overflow.
    first = (numerator << 30) // denominator
    rest = (numerator << 30) - first * denominator
    s = (first << 10) + (rest << 10) // denominator
    square = (first * first) >> 30
    series = square * 0 + _ONE // 13
    for odd in (11, 9, 7, 5, 3):
        series = ((series * square) >> 30) + _ONE // odd
    return (exponent + above) * _LN2 + 2 * (s + ((first * ((series * square) >> 30)) >> 20))
