"""Hiding an exact number of units at random: those with the largest noise, ties broken by the unit's index.

The order is total, so every library finds the same units, however it looks for them.
"""

from typing import Any

import numpy as np

from unveil_masking._arrays import arange, library, sort
from unveil_masking._noise import noise_pieces, noise_range

__all__ = ["hidden_units"]

_INDEX_BITS = 31  # 32 bits of noise above 31 bits of index: the sort key stays a positive int64


def hidden_units(total: int, hidden: int, sample_ids: Any, seed: int, epoch: Any) -> Any:
    """Bool [b, total], True on the `hidden` units of each sample with the largest noise.

    Args:
        total: number of units, at least 1.
        hidden: how many to hide, in [0, total).
        sample_ids: int64 [b].
        seed: see `noise`.
        epoch: see `noise`.
    """
    if library(sample_ids) is np:
        mask = np.empty((len(sample_ids), total), dtype=bool)
        for rows, words in noise_pieces(seed, epoch, sample_ids, total):
            mask[rows] = _hidden_units_numpy(words, hidden)
        return mask
    return _hidden_units_by_key(noise_range(seed, epoch, sample_ids, total), hidden)


def _hidden_units_by_key(words: Any, hidden: int) -> Any:
    keys = (words << _INDEX_BITS) + arange(words.shape[1], words)
    last_kept = sort(keys)[:, words.shape[1] - hidden - 1, None]
    return keys > last_kept


def _hidden_units_numpy(words: np.ndarray, hidden: int) -> np.ndarray:
    """The same by selection on the noise alone: linear in the units, and right unless equal noise is split."""
    last = words.shape[1] - hidden - 1
    mask = words > np.partition(words, last, axis=-1)[:, last, None]
    # Noise equal to the last kept one's leaves too few above it: only then does the index decide.
    if np.count_nonzero(mask) != hidden * len(words):
        return _hidden_units_by_key(words.astype(np.int64), hidden)
    return mask
