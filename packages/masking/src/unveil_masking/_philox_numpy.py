"""Philox4x32-10 for NumPy alone: the words of `_philox.philox4x32`, more than ten times as fast.

Unsigned 64-bit products need no trick, and three things save time. Two words share a 64-bit number, the first above,
so that a round of the pair (x, y) of numbers is

    x' = high(y) · M₁ ⊕ (x << 32) ⊕ (k₀ << 32)        y' = high(x) · M₀ ⊕ (y << 32) ⊕ (k₁ << 32)

The counter is a row and a column of the (sample × block) rectangle: the first two rounds run on its sides. The other
eight run in place, on flat pieces that stay in the cache.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["philox_pieces", "philox_words"]

_ROUNDS = 10
_WORD = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_PIECE = 32768  # blocks worked on at a time: four arrays of 256 KiB; smaller ones cost more calls than caches save
_HIGH, _LOW = (1, 0) if sys.byteorder == "little" else (0, 1)

_Words = np.ndarray[Any, np.dtype[np.uint64]]


def philox_words(blocks: range, ids: np.ndarray, epoch: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """The noise of some blocks of four indices.

    Args:
        blocks: which ones, m of them in steps of 1.
        ids: int64 [b], the sample ids.
        epoch: int64 [b, 1] or [1, 1], with values in [0, 2³²).
        key: two integers in [0, 2³²).

    Returns:
        uint32 [b, 4 · m]: four words of each block, side by side.
    """
    out = np.empty((len(ids), 4 * len(blocks)), dtype=np.uint32)
    for rows, words in philox_pieces(blocks, ids, epoch, key):
        out[rows] = words
    return out


def philox_pieces(
    blocks: range, ids: np.ndarray, epoch: np.ndarray, key: tuple[int, int]
) -> Iterator[tuple[slice, np.ndarray]]:
    """`philox_words` by pieces of a few samples: (which ones, uint32 [r, 4 · m]).

    A piece is overwritten by the next: who is done with one before asking for another stays in the cache, and spares
    the operating system a fresh page for every kilobyte.
    """
    num_blocks = len(blocks)
    samples = ids.view(np.uint64)[:, None]
    epochs = epoch.astype(np.uint64)
    blocks_at_once = max(1, min(num_blocks, _PIECE))
    rows_at_once = max(1, min(len(ids), _PIECE // max(1, num_blocks)))
    # One array, not two: an allocator that gives the end of its heap back when more than twice the largest array is
    # free there then keeps it from call to call. Fresh pages would cost as much as all of the arithmetic.
    size = 2 * rows_at_once * blocks_at_once
    together = np.empty(2 * size + 2 * rows_at_once * num_blocks, dtype=np.uint64)
    space = together[: 2 * size].reshape(2, size)
    piece = together[2 * size :].view(np.uint32).reshape(rows_at_once, num_blocks, 4)
    for top in range(0, len(ids), rows_at_once):
        rows = slice(top, min(top + rows_at_once, len(ids)))
        words = piece[: rows.stop - top]
        for left in range(0, num_blocks, blocks_at_once):
            some = blocks[left : left + blocks_at_once]
            counter = (
                np.arange(some.start, some.stop, dtype=np.uint64)[None, :],
                samples[rows],
                epochs[rows] if len(epochs) > 1 else epochs,
            )
            _fill(words[:, left : left + blocks_at_once], counter, key, space)
        yield rows, words.reshape(len(words), 4 * num_blocks)


def _fill(out: np.ndarray, counter: tuple[_Words, _Words, _Words], key: tuple[int, int], space: _Words) -> None:
    """One piece: `out` [r, m, 4] from blocks [1, m], ids [r, 1] and epoch [r, 1] or [1, 1], in `space` [2, ≥ 2·r·m]."""
    shape, size = out.shape[:2], out.shape[0] * out.shape[1]
    state, products = space[0, : 2 * size], space[1, : 2 * size]
    first, second = state[:size], state[size:]
    of_first, of_second = products[:size], products[size:]
    _broadcast_rounds(first.reshape(shape), second.reshape(shape), counter, key)
    for turn in range(2, _ROUNDS):
        key_first, key_second = _round_key(key, turn)
        np.right_shift(state, _SHIFT, out=products)
        np.multiply(of_first, _MULTIPLIERS[0], out=of_first)
        np.multiply(of_second, _MULTIPLIERS[1], out=of_second)
        np.left_shift(state, _SHIFT, out=state)
        np.bitwise_xor(first, of_second, out=first)
        np.bitwise_xor(first, key_first << _SHIFT, out=first)
        np.bitwise_xor(second, of_first, out=second)
        np.bitwise_xor(second, key_second << _SHIFT, out=second)
    halves = state.view(np.uint32).reshape(2, *shape, 2)
    for pair in (0, 1):
        out[..., 2 * pair] = halves[pair, ..., _HIGH]
        out[..., 2 * pair + 1] = halves[pair, ..., _LOW]


def _broadcast_rounds(
    first: _Words, second: _Words, counter: tuple[_Words, _Words, _Words], key: tuple[int, int]
) -> None:
    """Rounds 0 and 1 of a counter (block, low half of the id, high half, epoch) into `first` and `second` [r, m]."""
    blocks, ids, epoch = counter
    key_first, key_second = _round_key(key, 0)
    product, other = blocks * _MULTIPLIERS[0], (ids >> _SHIFT) * _MULTIPLIERS[1]
    words = (
        (other >> _SHIFT) ^ (ids & _WORD) ^ key_first,
        other & _WORD,
        (product >> _SHIFT) ^ epoch ^ key_second,
        product & _WORD,
    )
    key_first, key_second = _round_key(key, 1)
    np.bitwise_xor(words[2] * _MULTIPLIERS[1], (words[1] ^ key_first) << _SHIFT, out=first)
    np.bitwise_xor(words[0] * _MULTIPLIERS[0], (words[3] ^ key_second) << _SHIFT, out=second)


def _round_key(key: tuple[int, int], turn: int) -> tuple[np.uint64, np.uint64]:
    first, second = ((key[i] + turn * _WEYL[i]) & 0xFFFFFFFF for i in range(2))
    return np.uint64(first), np.uint64(second)
