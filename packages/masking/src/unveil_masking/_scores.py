"""Floating-point scores of the caller as integers that are the same on every library and device.

What is done to a score is exact, or one multiplication and one rounding to the nearest, which IEEE 754 fixes.
Shapes: b samples, n tokens.
"""

from typing import Any

import numpy as np

from unveil_masking._arrays import library, on_host, where_am_i
from unveil_masking.errors import ScoreError

__all__ = ["check_scores", "fixed_point", "in_order", "meet"]

_MAGNITUDE = 2**31 - 1


def check_scores(scores: Any, ids: Any, shape: tuple[int, int]) -> Any:
    """Scores as float32 without gradient, in their own library and on their own device.

    NaN are looked for where that needs no wait for a device: NumPy, and torch on the CPU outside a compiled graph.

    Raises:
        ScoreError: they are missing, no floats, NaN, of another shape, or live elsewhere than `ids`.
    """
    xp: Any = library(scores)
    if not _are_floats(scores) or tuple(scores.shape) != shape or where_am_i(scores) != where_am_i(ids):
        raise ScoreError(
            f"scores are {where_am_i(scores)} of dtype {getattr(scores, 'dtype', None)} and shape "
            f"{tuple(getattr(scores, 'shape', ()))}. This strategy needs floats of shape {list(shape)}, the largest "
            f"hidden first, on {where_am_i(ids)}, where sample_ids are: call `sample` with `scores=`."
        )
    narrow = scores.astype(np.float32) if xp is np else scores.detach().to(xp.float32)
    host = on_host(narrow)
    if host is None:
        return xp.where(narrow != narrow, float("inf"), narrow)
    if np.isnan(host).any():
        raise ScoreError(
            f"{int(np.isnan(host).sum())} scores are NaN, which have no order. Give −inf for tokens to be hidden last, "
            "or look for the NaN in the model that made them."
        )
    return narrow


def _are_floats(scores: Any) -> bool:
    xp = library(scores)
    return xp is not None and (scores.dtype.kind == "f" if xp is np else scores.is_floating_point())


def meet(scores: Any, ids: Any) -> Any:
    """Scores in the library of the ids, if those were taken to NumPy."""
    return on_host(scores) if library(ids) is np else scores


def in_order(scores: Any) -> Any:
    """int64 in [0, 2³²), ordered as the float32 scores are; −0 and 0 are equal."""
    xp: Any = library(scores)
    bits = scores.view(np.int32).astype(np.int64) if xp is np else scores.view(xp.int32).to(xp.int64)
    magnitude = bits & _MAGNITUDE
    return xp.where(bits < 0, -magnitude, magnitude) + 2**31


def fixed_point(scores: Any, divisor: float, fraction_bits: int, room_bits: int) -> Any:
    """round(scores / divisor) as int64 in units of 2^−fraction_bits, cut to ±2^room_bits units."""
    xp: Any = library(scores)
    wide = scores.astype(np.float64) if xp is np else scores.to(xp.float64)
    units = (wide * (2.0**fraction_bits / divisor)).clip(-(2.0**room_bits), 2.0**room_bits)
    return np.rint(units).astype(np.int64) if xp is np else units.round().to(xp.int64)
