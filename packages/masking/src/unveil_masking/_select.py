"""Selecting the largest keys where every sample may hide another number of tokens."""

from typing import Any

import numpy as np

from unveil_masking._arrays import arange, library, sort

__all__ = ["INDEX_BITS", "hide_largest", "unique"]

INDEX_BITS = 31
"""Low bits of a key that hold the token's index, so that no two keys of a sample are equal."""


def unique(values: Any) -> Any:
    """Keys [b, n] of 32-bit `values` [b, n], ordered like them, ties by index; below 2⁶³."""
    return (values << INDEX_BITS) + arange(values.shape[1], values)


def hide_largest(keys: Any, hidden: Any) -> Any:
    """Bool [b, n], True on the tokens with the largest keys.

    Args:
        keys: int64 [b, n], no two of a sample equal.
        hidden: how many of each sample, in [0, n): one int, or int64 [b].
    """
    xp: Any = library(keys)
    if xp is np and isinstance(hidden, int):  # linear in the tokens
        place = keys.shape[1] - 1 - hidden
        return keys > np.partition(keys, place, axis=-1)[:, place, None]
    last_kept = keys[:, :1] * 0 + (keys.shape[1] - 1) - (hidden if isinstance(hidden, int) else hidden[:, None])
    ordered = sort(keys)
    along = np.take_along_axis if xp is np else xp.take_along_dim
    return keys > along(ordered, last_kept, 1)
