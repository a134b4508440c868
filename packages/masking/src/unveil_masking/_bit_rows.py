"""Masks of a grid as bits of integers, 32 columns in each: a block is painted and counted without touching its tokens.

Shapes: b samples, c integers for a row (c = ⌈cols / 32⌉); int64, because PyTorch has no unsigned arithmetic.
"""

from typing import Any

import numpy as np

from unveil_masking._arrays import arange, library
from unveil_masking.grid import Grid

__all__ = ["block_bits", "empty_bits", "num_bits", "tokens_of_bits"]

_BITS = 32


def empty_bits(grid: Grid, like: Any) -> Any:
    """int64 [b, rows, c] of zeros for `like` [b], an array of the same library on the same device."""
    shape = (like.shape[0], grid.rows, -(-grid.cols // _BITS))
    return np.zeros(shape, dtype=np.int64) if library(like) is np else like.new_zeros(shape)


def block_bits(grid: Grid, top: Any, left: Any, height: Any, width: Any) -> Any:
    """int64 [b, rows, c]: bits of the tokens of one rectangle per sample, whose place and size are int64 [b]."""
    row = arange(grid.rows, top) - top[:, None]
    in_rows = (row >= 0) & (row < height[:, None])
    first = _BITS * arange(-(-grid.cols // _BITS), top)
    begin = (left[:, None] - first).clip(0, _BITS)
    end = ((left + width)[:, None] - first).clip(0, _BITS)
    in_cols = (1 << end) - (1 << begin)
    return in_rows[:, :, None] * in_cols[:, None, :]


def num_bits(bits: Any) -> Any:
    """int64 [b]: how many bits of int64 [b, rows, c] are set."""
    flat = bits.reshape(bits.shape[0], bits.shape[1] * bits.shape[2])
    if library(bits) is np and hasattr(np, "bitwise_count"):
        return np.bitwise_count(flat).sum(-1, dtype=np.int64)
    # Sums of neighbouring groups of 1, 2 and 4 bits; the product then adds the four bytes up in the highest.
    pairs = flat - ((flat >> 1) & 0x55555555)
    fours = (pairs & 0x33333333) + ((pairs >> 2) & 0x33333333)
    eights = (fours + (fours >> 4)) & 0x0F0F0F0F
    return (((eights * 0x01010101) >> 24) & 0xFF).sum(-1)


def tokens_of_bits(bits: Any, grid: Grid) -> Any:
    """Bool [b, n] of int64 [b, rows, c]."""
    if library(bits) is np:
        octets = bits.astype("<u4").view(np.uint8).reshape(*bits.shape[:2], 4 * bits.shape[2])
        tokens = np.unpackbits(octets, axis=-1, count=grid.cols, bitorder="little").view(bool)
        return tokens.reshape(len(bits), grid.num)
    col = arange(grid.cols, bits)
    return (((bits[:, :, col // _BITS] >> col % _BITS) & 1) > 0).reshape(bits.shape[0], grid.num)
