"""Rectangles of tokens with random areas, aspects and places, in integer arithmetic.

An area is `a · 2⁻ᵇ` tokens with an even number b of fraction bits that fits the grid, so that its square root has b/2.
The root is that of a float64 that holds the area exactly: correctly rounded everywhere, and cut to an integer.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from unveil_masking._arrays import arange, library
from unveil_masking._base import Strategy
from unveil_masking._fixed_point import EXP_BITS, exp, log_of
from unveil_masking.errors import GridError, UnitError
from unveil_masking.grid import Grid

__all__ = [
    "AspectRange",
    "ShareRange",
    "area_bits",
    "aspect_range",
    "block_words",
    "check_image",
    "covering_sides",
    "num_true",
    "offset",
    "rectangle",
    "sides",
    "uniform_area",
]

_LARGEST_ASPECT = 16
_ASPECT_BITS = 26  # of uniform aspects, so that a word times an aspect stays below 2⁶³


@dataclass(frozen=True, slots=True)
class AspectRange:
    """Bounds of height / width.

    Raises:
        UnitError: they are not numbers in [1/16, 16] in ascending order.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        numbers = all(isinstance(side, (int, float)) and not isinstance(side, bool) for side in (self.low, self.high))
        if not numbers or not 1 / _LARGEST_ASPECT <= self.low <= self.high <= _LARGEST_ASPECT:
            raise UnitError(
                f"aspects from {self.low!r} to {self.high!r} are not allowed. Give height / width, smallest first, "
                f"between 1/{_LARGEST_ASPECT} and {_LARGEST_ASPECT}, for example 0.3 and 3.33."
            )

    def within(self, low: float, high: float) -> "AspectRange":
        """The part of the range between `low` and `high`, or the one aspect that is nearest to it."""
        nearest = [min(max(side, low), high) for side in (self.low, self.high)]
        return AspectRange(*(min(max(side, 1 / _LARGEST_ASPECT), float(_LARGEST_ASPECT)) for side in nearest))

    def roots(self, words: Any) -> Any:
        """Square roots of log-uniform aspects in units of 2⁻³⁰, one for each 32-bit word."""
        low, high = log_of(self.low) >> 1, log_of(self.high) >> 1
        span = high - low
        if span < 2**31:
            return exp(low + ((words * span) >> 32))
        # From 1:55 on the product has more than 63 bits: in two halves it has the same digits.
        return exp(low + (((words >> 16) * span + ((words & 0xFFFF) * span >> 16)) >> 16))

    def uniform_roots(self, words: Any) -> Any:
        """Square roots of uniform aspects in units of 2⁻³⁰, one for each 32-bit word."""
        low, high = (round(side * 2**_ASPECT_BITS) for side in (self.low, self.high))
        aspects = low + ((words * (high - low)) >> 32)
        return _root(aspects << 48 - _ASPECT_BITS) << EXP_BITS - 24


def aspect_range(low: float, high: float | None) -> AspectRange:
    """The range from `low` to `high`, or to 1 / low for None; errors as `AspectRange`."""
    if high is None and isinstance(low, (int, float)) and low > 0:
        return AspectRange(low, 1 / low)
    shown: Any = high
    return AspectRange(low, shown)


@dataclass(frozen=True, slots=True)
class ShareRange:
    """Bounds of an area as a share of the grid.

    Raises:
        UnitError: they are not numbers in (0, 1] in ascending order.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        numbers = all(isinstance(side, (int, float)) and not isinstance(side, bool) for side in (self.low, self.high))
        if not numbers or not 0 < self.low <= self.high <= 1:
            raise UnitError(
                f"areas from {self.low!r} to {self.high!r} are not allowed. Give shares of the grid, smallest first, "
                "above 0 and at most 1, for example 0.15 and 0.2."
            )

    def areas(self, grid: Grid, words: Any) -> Any:
        """Uniform areas in units of 2⁻ᵇ tokens, one for each 32-bit word; b as `area_bits` has it."""
        low, high = (round(side * 2**30) for side in (self.low, self.high))
        return ((low + ((words * (high - low)) >> 32)) * grid.num << 2) >> 32 - area_bits(grid)


def check_image(strategy: Strategy, grid: Grid) -> None:
    """Refuse a clip where every slot would need a mask of its own.

    Raises:
        GridError: with the way out.
    """
    if grid.frames > 1:
        raise GridError(
            f"{type(strategy).__name__} draws rectangles on one image, and the grid {grid} has {grid.frames} temporal "
            'slots. Use share="clip" for the same mask in every slot.'
        )


def block_words(words: Any) -> tuple[Any, Any, Any, Any]:
    """Words [b, 4·a] as four of [b, a], those of a blocks: area, aspect, top, left."""
    by_block = words.reshape(words.shape[0], words.shape[1] // 4, 4)
    return by_block[..., 0], by_block[..., 1], by_block[..., 2], by_block[..., 3]


def area_bits(grid: Grid) -> int:
    """Fraction bits of areas on this grid: an even number, at most 32, so that an area stays below 2⁵³."""
    return min(32, 52 - grid.num.bit_length() & ~1)


def uniform_area(grid: Grid, low: Any, high: Any, words: Any) -> Any:
    """Areas between `low` and `high` tokens, in either order; ints or int64 arrays; in units of 2⁻ᵇ tokens."""
    bits = area_bits(grid)
    return (high * 0 + low << bits) + ((words * (high - low)) >> (32 - bits))


def sides(grid: Grid, areas: Any, aspect_roots: Any) -> tuple[Any, Any]:
    """Height and width of blocks: round(√(area · aspect)) and round(√(area / aspect)), in tokens.

    A grid of one row or one column has no other aspect: there the block is a run of round(area) tokens.
    """
    bits = area_bits(grid)
    if 1 in (grid.rows, grid.cols):
        run, one = (areas + (1 << bits - 1)) >> bits, areas * 0 + 1
        return (one, run) if grid.rows == 1 else (run, one)
    root = _root(areas)
    half = 1 << bits // 2 - 1
    height = (((root * aspect_roots) >> EXP_BITS) + half) >> bits // 2
    width = ((root << EXP_BITS) // aspect_roots + half) >> bits // 2
    return height, width


def _root(numbers: Any) -> Any:
    """⌊√x⌋ of int64 below 2⁵², or one more where √x is within a float64's precision of it."""
    xp: Any = library(numbers)
    if xp is np:
        return np.sqrt(numbers.astype(np.float64)).astype(np.int64)
    return xp.sqrt(numbers.to(xp.float64)).to(xp.int64)


def covering_sides(grid: Grid, num_tokens: int, aspect_roots: Any) -> tuple[Any, Any]:
    """Height and width of the rectangles on this grid that hold `num_tokens`: ⌈√(num · aspect)⌉ and ⌈√(num / aspect)⌉.

    An aspect that the grid has no room for gives the nearest that it has.
    """
    bits = area_bits(grid)
    root = math.isqrt(num_tokens << bits)
    below_one = (1 << bits // 2) - 1
    height = (((aspect_roots * root) >> EXP_BITS) + below_one) >> bits // 2
    height = height.clip(-(-num_tokens // grid.cols), grid.rows)
    width = ((aspect_roots * 0 + (root << EXP_BITS)) // aspect_roots + below_one) >> bits // 2
    xp: Any = library(width)
    least = -(-num_tokens // height)
    return height, xp.where(width < least, least, width).clip(max=grid.cols)


def offset(words: Any, room: Any) -> Any:
    """Uniform integers in [0, room]: multiply and shift, whose bias is below room / 2³²."""
    return (words * (room + 1)) >> 32


def rectangle(grid: Grid, top: Any, left: Any, height: Any, width: Any) -> Any:
    """Bool [..., rows, cols], True on tokens of the rectangles, whose places and sizes are [...]."""
    row, col = arange(grid.rows, top) - top[..., None], arange(grid.cols, top) - left[..., None]
    in_rows, in_cols = (row >= 0) & (row < height[..., None]), (col >= 0) & (col < width[..., None])
    return in_rows[..., :, None] & in_cols[..., None, :]


def num_true(mask: Any) -> Any:
    """int64 [b]: how many tokens of a bool mask [b, n] are True."""
    return mask.sum(-1)
