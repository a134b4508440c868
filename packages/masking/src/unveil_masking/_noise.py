"""Randomness as a pure function of (seed, epoch, sample id, index).

Nothing is drawn from a generator with state, so a value does not depend on batch size, worker count, rank count, order
or restart. The mapping onto Philox4x32-10 (see `_philox.py`) is part of the public contract and never changes:

    key     = (seed & 0xFFFFFFFF, seed >> 32)
    counter = (index >> 2, sample_id & 0xFFFFFFFF, (sample_id >> 32) & 0xFFFFFFFF, epoch)
    noise   = word number (index & 3) of the resulting block

Test vectors are in the README. Shapes: b samples, n indices.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np

from unveil_masking._arrays import arange, integers, library, where_am_i
from unveil_masking._philox import philox4x32
from unveil_masking._philox_numpy import philox_pieces, philox_words
from unveil_masking.errors import KeyArrayError

__all__ = ["epoch_key", "noise", "noise_pieces", "noise_range", "noise_words"]

Array = TypeVar("Array")
"""A NumPy array or a torch tensor; a function returns the library and device it was given."""

_WORD = 0xFFFFFFFF


def noise(seed: int, epoch: int | Array, sample_ids: Array, index: Array) -> Array:
    """32 random bits for each (sample, index).

    Args:
        seed: the run's seed, 0 ≤ seed < 2⁶⁴.
        epoch: one epoch for all samples, 0 ≤ epoch < 2³², or an int64 array [b] (its low 32 bits count).
        sample_ids: int64 [b]; all 64 bits count.
        index: int64 [n], what is asked of each sample; values in [0, 2³²).

    Returns:
        int64 [b, n] with values in [0, 2³²), uniformly distributed.

    Raises:
        KeyArrayError: a key of a wrong type, shape or range, or arrays of different libraries or devices.
    """
    ids, wanted = integers(sample_ids, "sample_ids"), integers(index, "index")
    _must_meet(wanted, ids, "index")
    words = _blocks(seed, epoch, ids, (wanted & _WORD) >> 2)
    lane, xp = wanted & 3, _module(ids)
    pairs = (xp.where(lane == 1, words[1], words[0]), xp.where(lane == 3, words[3], words[2]))
    return xp.where(lane >= 2, pairs[1], pairs[0])


def noise_range(seed: int, epoch: int | Array, sample_ids: Array, count: int, *, first: int = 0) -> Array:
    """`noise` for indices first … first + count − 1, at a quarter of the cost: each block's four words are all used.

    `first` is a multiple of 4.
    """
    ids: Any = integers(sample_ids, "sample_ids")
    if library(ids) is np:
        words: Any = noise_words(seed, epoch, ids, count, first=first)
        return words.astype(np.int64)
    num_blocks = (count + 3) // 4
    # The `&` changes nothing, but keeps PyTorch's compiler from folding the first round's product into the range, whose
    # vectorised form on a CPU steps in 32 bits (seen with 2.13): the noise of later blocks would be another.
    block = (arange(num_blocks, ids) + first // 4) & _WORD
    words = _blocks(seed, epoch, ids, block)
    return _module(ids).stack(words, -1).reshape(ids.shape[0], 4 * num_blocks)[:, :count]


def noise_words(seed: int, epoch: Any, ids: np.ndarray, count: int, *, first: int = 0) -> np.ndarray:
    """`noise_range` for NumPy, as uint32: half the memory of int64."""
    key = _key(seed)
    blocks = range(first // 4, first // 4 + (count + 3) // 4)
    return philox_words(blocks, ids, _epoch_word(epoch, ids), key)[:, :count]


def noise_pieces(seed: int, epoch: Any, ids: np.ndarray, count: int) -> Iterator[tuple[slice, np.ndarray]]:
    """`noise_words` by pieces of a few samples, each overwritten by the next; see `philox_pieces`."""
    key = _key(seed)
    for rows, words in philox_pieces(range((count + 3) // 4), ids, _epoch_word(epoch, ids), key):
        yield rows, words[:, :count]


def epoch_key(epoch: Any, ids: Any) -> Any:
    """The epoch as it was given if it is an int, else as int64 [b]; refused if it cannot key the noise of `ids`.

    Raises:
        KeyArrayError: a wrong type, shape or range, or another library or device than that of `ids`.
    """
    if isinstance(epoch, int):
        if not 0 <= epoch <= _WORD:
            raise KeyArrayError(f"epoch={epoch} is outside [0, 2**32). Number epochs from 0.")
        return epoch
    epochs = integers(epoch, "epoch (which is not a Python int)")
    _must_meet(epochs, ids, "epoch")
    if epochs.shape != ids.shape:
        raise KeyArrayError(
            f"epoch has shape {tuple(epochs.shape)} but sample_ids {tuple(ids.shape)}. "
            "Give one int for all samples, or an array with one epoch per sample."
        )
    return epochs


def _key(seed: int) -> tuple[int, int]:
    if not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise KeyArrayError(f"seed={seed!r} is not an int in [0, 2**64). Give the run's seed as a Python int.")
    return seed & _WORD, seed >> 32


def _blocks(seed: int, epoch: Any, ids: Any, block: Any) -> tuple[Any, Any, Any, Any]:
    """The four words [b, n] of every (sample, block)."""
    key = _key(seed)
    counter = (block[None, :], (ids & _WORD)[:, None], ((ids >> 32) & _WORD)[:, None], _epoch_word(epoch, ids))
    return philox4x32(counter, key)


def _epoch_word(epoch: Any, ids: Any) -> Any:
    """The epoch as counter word, [b, 1], or [1, 1] where all samples share it."""
    checked = epoch_key(epoch, ids)
    if isinstance(checked, int):
        xp: Any = _module(ids)
        return np.full((1, 1), checked) if xp is np else xp.full((1, 1), checked, dtype=ids.dtype, device=ids.device)
    return (checked & _WORD)[:, None]


def _module(array: Any) -> Any:
    xp = library(array)
    assert xp is not None, "integers() lets only NumPy arrays and torch tensors through"
    return xp


def _must_meet(array: Any, ids: Any, name: str) -> None:
    if where_am_i(array) != where_am_i(ids):
        raise KeyArrayError(
            f"{name} is {where_am_i(array)} but sample_ids is {where_am_i(ids)}. "
            "Give both in the same library and on the same device."
        )
