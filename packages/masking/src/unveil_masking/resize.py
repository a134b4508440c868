"""Image reduction by resizing: masking's peer at an equal number of tokens (CLIPA, arXiv:2305.07017).

Instead of dropping tokens of a large image, make the image smaller: 224 → 112 pixels leaves as many tokens as a mask of
ratio 0.75. CLIPA measures it ahead of random, grid and block masks for contrastive pre-training, so a study of masking
that leaves it out omits the strongest cheap competitor.

Resizing is two small matrix products, one per axis, with the antialiased filters of Pillow and of
`torch.nn.functional.interpolate(antialias=True)`: the filter is widened by the scale, cut at the border and normalised.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from unveil_masking._arrays import arange, library, where_am_i
from unveil_masking.counts import Rounding, check_ratio, num_hidden
from unveil_masking.errors import RatioError, TokenShapeError
from unveil_masking.grid import Grid

__all__ = ["Filter", "ResizeReduction"]

Array = TypeVar("Array")

Filter = Literal["bilinear", "bicubic"]
"""The antialiasing filter: a triangle of support 1, or Keys' cubic (a = −1/2) of support 2, in output pixels."""


@dataclass(frozen=True, slots=True)
class ResizeReduction:
    """Shrink images so that they have at most as many tokens as a mask of this ratio would keep.

    Raises:
        RatioError: a ratio outside [0, 1), an unknown rounding rule or an unknown filter.
    """

    ratio: float
    """Share of tokens to save, in [0, 1); read as its shortest decimal."""
    filter: Filter = "bicubic"
    """The antialiasing filter, see `Filter`."""
    rounding: Rounding = "floor_keep"
    """How the equal-ratio mask would round its count, see `unveil_masking.counts`."""

    def __post_init__(self) -> None:
        check_ratio(self.ratio, self.rounding)
        if self.filter not in get_args(Filter):
            raise RatioError(f"filter={self.filter!r} is unknown. Allowed: {', '.join(get_args(Filter))}.")

    def grid(self, grid: Grid) -> Grid:
        """The grid of the smaller image: both sides scaled alike and rounded down, at least 1.

        It is the largest such grid with at most the tokens that a mask of this ratio keeps; frames are left alone.

        Raises:
            RatioError: the ratio would leave no token.
        """
        allowed = grid.rows * grid.cols - num_hidden(grid.rows * grid.cols, self.ratio, self.rounding)
        # A side changes only where the scale passes i / rows or j / cols; each candidate is the grid at such a scale.
        by_rows = ((rows, max(rows * grid.cols // grid.rows, 1)) for rows in range(1, grid.rows + 1))
        by_cols = ((max(cols * grid.rows // grid.cols, 1), cols) for cols in range(1, grid.cols + 1))
        fitting = [sides for sides in (*by_rows, *by_cols) if sides[0] * sides[1] <= allowed]
        rows, cols = max(fitting, key=lambda sides: sides[0] * sides[1])
        return Grid(rows, cols, grid.frames)

    def num_tokens(self, grid: Grid) -> int:
        """Tokens of the smaller image; errors as `grid`."""
        return self.grid(grid).num

    def realised_ratio(self, grid: Grid) -> float:
        """Share of the tokens that is saved, at least the ratio asked for; errors as `grid`."""
        return 1 - self.num_tokens(grid) / grid.num

    def resize(self, images: Array, patch: int) -> Array:
        """Images of the smaller grid, [b, c, h, w] → [b, c, rows·patch, cols·patch].

        Args:
            images: float, NumPy or torch; gradients flow through.
            patch: side of a token in pixels; it divides h and w.

        Raises:
            TokenShapeError: not float images [b, c, h, w], or a patch that does not divide their sides.
            RatioError: the ratio would leave no token.
        """
        pixels: Any = images
        _check_images(pixels, patch)
        small = self.grid(Grid(pixels.shape[2] // patch, pixels.shape[3] // patch))
        tall = _weights(pixels.shape[2], small.rows * patch, self.filter, pixels)
        wide = _weights(pixels.shape[3], small.cols * patch, self.filter, pixels)
        xp: Any = library(pixels)
        if xp is np:
            kept_type = np.result_type(pixels.dtype, np.float32)
            whole = tall.astype(kept_type) @ (pixels.astype(kept_type) @ wide.astype(kept_type).T)
            return whole.astype(pixels.dtype)
        kept_type = xp.promote_types(pixels.dtype, xp.float32)  # half precision would be lost in the sums
        whole = tall.to(kept_type) @ (pixels.to(kept_type) @ wide.to(kept_type).T)
        return whole.to(pixels.dtype)

    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the reduction."""
        return {"strategy": "resize", "ratio": self.ratio, "rounding": self.rounding, "filter": self.filter}


def _check_images(images: Any, patch: int) -> None:
    xp: Any = library(images)
    is_float = xp is not None and (images.dtype.kind == "f" if xp is np else images.is_floating_point())
    if not is_float or images.ndim != 4:
        raise TokenShapeError(
            f"images is {where_am_i(images)} of dtype {getattr(images, 'dtype', None)} and shape "
            f"{tuple(getattr(images, 'shape', ()))}. Give float images [b, c, h, w]; convert bytes first."
        )
    height, width = images.shape[2:]
    if not isinstance(patch, int) or isinstance(patch, bool) or patch < 1 or height % patch or width % patch:
        raise TokenShapeError(
            f"patch={patch!r} does not tile images of {height}×{width} pixels. "
            f"Give the side of a token in pixels, a divisor of {math.gcd(height, width)}."
        )


def _weights(size: int, new_size: int, kernel: Filter, like: Any) -> Any:
    """Float64 [new_size, size], rows summing to 1, made on the device of `like` so that nothing is copied to it."""
    scale = size / new_size
    centre, pixel = _centres(new_size, like)[:, None] * scale, _centres(size, like)[None, :]
    distance = abs(pixel - centre) / scale
    weights = _triangle(distance) if kernel == "bilinear" else _cubic(distance)
    return weights / weights.sum(1)[:, None]


def _centres(size: int, like: Any) -> Any:
    """Float64 [size], the middles of pixels: 0.5, 1.5 and so on."""
    whole = arange(size, like)
    return (whole.astype(np.float64) if library(like) is np else whole.double()) + 0.5


def _triangle(distance: Any) -> Any:
    return (1 - distance) * (distance < 1)


def _cubic(distance: Any) -> Any:
    """Keys' cubic convolution with a = −1/2: 1 − 2.5x² + 1.5x³ up to 1, 2 − 4x + 2.5x² − 0.5x³ up to 2."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
    return near * (distance < 1) + far * ((distance >= 1) & (distance < 2))
