"""Inverse-block masking: one rectangle stays visible, as in CAPI (arXiv:2502.08769, section 3)."""

from dataclasses import dataclass
from typing import Any

from unveil_masking._arrays import arange
from unveil_masking._base import Share, Strategy, check_share
from unveil_masking._blocks import AspectRange, aspect_range, check_image, covering_sides, offset
from unveil_masking._noise import noise_range
from unveil_masking.counts import Rounding, check_ratio, num_hidden
from unveil_masking.grid import Grid

__all__ = ["InverseBlockMask"]

_NUM_WORDS = 3  # aspect, row, column


@dataclass(frozen=True, slots=True)
class InverseBlockMask(Strategy):
    """Keep one rectangle, hide the rest: hidden = floor(n · ratio), kept = n − hidden, exactly.

    The rectangle has height / width drawn log-uniformly between `min_aspect` and `max_aspect`, less what the grid is
    too narrow or too low for, and the smallest sides that hold the kept tokens. What it holds too many is cut from its
    end, from the right of its last row, as in CAPI's code; so it need not be a full rectangle. With `roll` it lies
    anywhere on the torus: what leaves the grid on one side comes in at the other, and every token is kept equally
    often. Without, it lies uniformly within the grid, whose centre is kept most.

    The defaults are CAPI's: 166 of 16 × 16 tokens hidden.

    Raises:
        RatioError: a ratio outside [0, 1) or an unknown rounding rule.
        UnitError: aspects out of range.
        GridError: (on sampling) a grid with several temporal slots, unless `share="clip"`.
    """

    ratio: float = 0.65
    """Share of tokens to hide, in [0, 1); read as its shortest decimal."""
    rounding: Rounding = "floor_hidden"
    """How the count is rounded, see `unveil_masking.counts`."""
    min_aspect: float = 0.5
    """Smallest height / width of the visible rectangle, in [1/16, 16]."""
    max_aspect: float | None = None
    """Largest height / width, in [min_aspect, 16]; None for 1 / min_aspect."""
    roll: bool = True
    """Whether the rectangle wraps around the edges."""
    share: Share = "sample"
    """Who shares a mask, see `Share`."""

    def __post_init__(self) -> None:
        check_ratio(self.ratio, self.rounding)
        check_share(self.share)
        self._aspects()

    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the strategy."""
        return {
            "strategy": "inverse_block",
            "ratio": self.ratio,
            "rounding": self.rounding,
            "min_aspect": self.min_aspect,
            "max_aspect": self._aspects().high,
            "roll": self.roll,
            "share": self.share,
        }

    def _aspects(self) -> AspectRange:
        return aspect_range(self.min_aspect, self.max_aspect)

    def _hidden_range(self, grid: Grid) -> tuple[int, int]:
        check_image(self, grid)
        hidden = num_hidden(grid.num, self.ratio, self.rounding)
        return hidden, hidden

    def _draw(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        kept = grid.num - self._hidden_range(grid)[1]
        words: Any = noise_range(seed, epoch, sample_ids, _NUM_WORDS)
        # Beyond these bounds a rectangle of the kept tokens would be wider or higher than the grid.
        aspects = self._aspects().within(kept / grid.cols**2, grid.rows**2 / kept)
        height, width = covering_sides(grid, kept, aspects.roots(words[:, 0]))
        room_down, room_right = (grid.rows - 1, grid.cols - 1) if self.roll else (grid.rows - height, grid.cols - width)
        top, left = offset(words[:, 1], room_down), offset(words[:, 2], room_right)
        # Without a roll, places before the rectangle wrap to places after it, which is outside just as well.
        row = (arange(grid.rows, words) - top[:, None]) % grid.rows
        col = (arange(grid.cols, words) - left[:, None]) % grid.cols
        before = (row * width[:, None])[:, :, None] + col[:, None, :]  # rectangle tokens before this one
        visible = (before < kept) & (col < width[:, None])[:, None, :]
        return (~visible).reshape(-1, grid.num)
