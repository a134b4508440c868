"""Philox4x32-10 for NumPy alone: the words of `_philox.philox4x32`, about ten times as fast.

Unsigned 64-bit products need no trick, and two things save time: the first two rounds run on the short sides of the
(sample × block) rectangle, because the counter is a row and a column; the other eight run in place, on flat pieces that
stay in the cache.
"""

from typing import Any

import numpy as np

__all__ = ["philox_words"]

_ROUNDS = 10
_BROADCAST_ROUNDS = 2
_WORD = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_PIECE = 8192  # blocks worked on at a time: five arrays of 8192 × 8 bytes are 320 KiB

_Words = np.ndarray[Any, np.dtype[np.uint64]]


def philox_words(num_blocks: int, ids: np.ndarray, epoch: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """The noise of indices 0 … 4 · num_blocks − 1.

    Args:
        num_blocks: number of counters per sample.
        ids: int64 [b], the sample ids.
        epoch: int64 [b, 1] or [1, 1], with values in [0, 2³²).
        key: two integers in [0, 2³²).

    Returns:
        uint32 [b, 4 · num_blocks]: four words of each block, side by side.
    """
    samples = ids.view(np.uint64)[:, None]
    epochs = epoch.astype(np.uint64)
    out = np.empty((len(ids), num_blocks, 2), dtype="<u8")  # two words each, the first one in the low half
    blocks_at_once = max(1, min(num_blocks, _PIECE))
    rows_at_once = max(1, _PIECE // blocks_at_once)
    for top in range(0, len(ids), rows_at_once):
        rows = slice(top, top + rows_at_once)
        epoch_rows = epochs[rows] if len(epochs) > 1 else epochs
        for left in range(0, num_blocks, blocks_at_once):
            blocks = np.arange(left, min(left + blocks_at_once, num_blocks), dtype=np.uint64)[None, :]
            _fill(out[rows, left : left + blocks_at_once], blocks, samples[rows], epoch_rows, key)
    return out.view("<u4").reshape(len(ids), 4 * num_blocks)


def _fill(out: np.ndarray, blocks: _Words, ids: _Words, epoch: _Words, key: tuple[int, int]) -> None:
    """One piece: `out` [r, m, 2] from blocks [1, m], ids [r, 1] and epoch [r, 1] or [1, 1]."""
    first, second, third, fourth = blocks, ids & _WORD, ids >> _SHIFT, epoch
    for turn in range(_BROADCAST_ROUNDS):
        key_first, key_second = _round_key(key, turn)
        product, other = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first, second, third, fourth = (
            (other >> _SHIFT) ^ second ^ key_first,
            other & _WORD,
            (product >> _SHIFT) ^ fourth ^ key_second,
            product & _WORD,
        )
    shape = out.shape[:2]
    spread = [np.broadcast_to(word, shape).reshape(-1) for word in (first, second, third, fourth)]
    words: list[_Words] = [word if word.flags.writeable else word.copy() for word in spread]
    first, second, third, fourth = words
    spare = np.empty_like(first)
    for turn in range(_BROADCAST_ROUNDS, _ROUNDS):
        key_first, key_second = _round_key(key, turn)
        np.multiply(first, _MULTIPLIERS[0], out=first)
        np.multiply(third, _MULTIPLIERS[1], out=third)
        np.right_shift(third, _SHIFT, out=spare)
        np.bitwise_xor(spare, second, out=spare)
        np.bitwise_xor(spare, key_first, out=spare)
        np.bitwise_and(third, _WORD, out=second)
        np.right_shift(first, _SHIFT, out=third)
        np.bitwise_xor(third, fourth, out=third)
        np.bitwise_xor(third, key_second, out=third)
        np.bitwise_and(first, _WORD, out=fourth)
        first, spare = spare, first
    for lane, low, high in ((0, first, second), (1, third, fourth)):
        np.left_shift(high, _SHIFT, out=high)
        np.bitwise_or(low, high, out=low)
        out[..., lane] = low.reshape(shape)


def _round_key(key: tuple[int, int], turn: int) -> tuple[np.uint64, np.uint64]:
    first, second = ((key[i] + turn * _WEYL[i]) & 0xFFFFFFFF for i in range(2))
    return np.uint64(first), np.uint64(second)
