"""Block-wise masking: BEiT (arXiv:2106.08254, algorithm 1), and as iBOT and DINOv3 (2508.10104) use it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from unveil_masking._arrays import library
from unveil_masking._base import Share, Strategy, check_share
from unveil_masking._bit_rows import block_bits, empty_bits, num_bits, tokens_of_bits
from unveil_masking._blocks import AspectRange, aspect_range, block_words, check_image, offset, sides, uniform_area
from unveil_masking._noise import noise_range
from unveil_masking._select import hide_largest, unique
from unveil_masking.counts import Rounding, check_ratio, num_hidden
from unveil_masking.errors import UnitError
from unveil_masking.grid import Grid

__all__ = ["BlockMask"]

_FAILURES = 10  # attempts at one block before a sample gives up: BEiT's code
_ATTEMPTS = 64  # attempts of a sample in all; how often this binds is measured in the tests
_STAGE = 8  # attempts between two looks, on NumPy, at who is done
_WORDS = 4  # 32-bit words of noise for an attempt


@dataclass(frozen=True, slots=True)
class BlockMask(Strategy):
    """Hide rectangular blocks, one after the other, until the target is met.

    Each attempt draws an area uniformly between `min_block` and the tokens still wanted (at most `max_block`), and a
    height / width ratio log-uniformly between `min_aspect` and `max_aspect`. The block is placed uniformly, and counts
    if it is smaller than the grid in both directions and hides at least one new token and no more than wanted. After
    ten failures in a row a sample stops. So it hides at most `floor(n · ratio)` tokens (see `rounding`), seldom fewer:
    samples differ. With `exact=True` the rest is hidden at random, token by token, as DINOv3 does.

    The defaults are those of BEiT's code: 75 of 14 × 14 tokens, blocks of 16 at least.

    A sample makes 64 attempts at most, so that a GPU need not be asked whether it is done; at 14 × 14 fewer than one
    sample in 10⁵ would make more. There all 64 are computed, one after the other: a few thousand small kernels, and
    minutes of `torch.compile`. Draw in the data loader, where NumPy stops early, or capture the call in a CUDA graph.
    On a grid of one row or column a block is a run of the area's length.

    Raises:
        RatioError: a ratio outside [0, 1) or an unknown rounding rule.
        UnitError: block sizes or aspects out of range.
        GridError: (on sampling) a grid with several temporal slots, unless `share="clip"`.
    """

    ratio: float = 0.383
    """Share of tokens to hide at most, in [0, 1); 0.383 of 196 tokens are BEiT's 75."""
    rounding: Rounding = "floor_hidden"
    """How the count is rounded, see `unveil_masking.counts`."""
    min_block: int = 16
    """Lower end of a block's area, in tokens, at least 1; smaller ones come up when fewer tokens are wanted."""
    max_block: int | None = None
    """Upper end of a block's area, in tokens; None for no limit but the tokens still wanted."""
    min_aspect: float = 0.3
    """Smallest height / width, in [1/16, 16]."""
    max_aspect: float | None = None
    """Largest height / width, in [min_aspect, 16]; None for 1 / min_aspect."""
    exact: bool = False
    """Complete every sample to the target with single tokens at random."""
    share: Share = "sample"
    """Who shares a mask, see `Share`."""

    def __post_init__(self) -> None:
        check_ratio(self.ratio, self.rounding)
        check_share(self.share)
        for name, size in (("min_block", self.min_block), ("max_block", self.max_block)):
            if size is None and name == "max_block":
                continue
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise UnitError(f"{name}={size!r} is not a positive int. Give an area in tokens, for example 16.")
        if self.max_block is not None and self.max_block < self.min_block:
            raise UnitError(
                f"max_block={self.max_block} is below min_block={self.min_block}. Swap them, or leave max_block out."
            )
        self._aspects()

    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the strategy; `max_block` 0 stands for none."""
        return {
            "strategy": "block",
            "ratio": self.ratio,
            "rounding": self.rounding,
            "min_block": self.min_block,
            "max_block": self.max_block or 0,
            "min_aspect": self.min_aspect,
            "max_aspect": self._aspects().high,
            "exact": self.exact,
            "share": self.share,
        }

    def _aspects(self) -> AspectRange:
        return aspect_range(self.min_aspect, self.max_aspect)

    def _hidden_range(self, grid: Grid) -> tuple[int, int]:
        check_image(self, grid)
        hidden = num_hidden(grid.num, self.ratio, self.rounding)
        return (hidden if self.exact else 0), hidden

    def _draw(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        return self.draw_hidden(grid, sample_ids, seed, epoch, self._hidden_range(grid)[1])

    def draw_hidden(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any, hidden: Any) -> Any:
        """Bool [b, n] with a target of its own for each sample; `hidden` is one int, or int64 [b]."""
        wanted = sample_ids * 0 + hidden
        painted = self._paint_host if library(sample_ids) is np else self._paint
        mask = tokens_of_bits(painted(grid, sample_ids, seed, epoch, wanted), grid)
        if not self.exact:
            return mask
        # Blocks first, then the noise of the other tokens: one order for both.
        rest: Any = noise_range(seed, epoch, sample_ids, grid.num, first=_WORDS * _ATTEMPTS)
        return hide_largest(unique((rest >> 1) + mask * 2**31), hidden)

    def _paint(self, grid: Grid, ids: Any, seed: int, epoch: Any, wanted: Any) -> Any:
        """The blocks as bits [b, rows, c]: all samples attempt at once, done or not."""
        words = noise_range(seed, epoch, ids, _WORDS * _ATTEMPTS)
        return self._attempts(grid, (empty_bits(grid, ids), wanted, wanted * 0), words)[0]

    def _paint_host(self, grid: Grid, ids: np.ndarray, seed: int, epoch: Any, wanted: np.ndarray) -> np.ndarray:
        """The same in stages, each of the samples that are not done: most are after a few attempts."""
        state = empty_bits(grid, ids), wanted, wanted * 0
        for stage in range(0, _ATTEMPTS, _STAGE):
            busy = np.flatnonzero((state[1] > 0) & (state[2] < _FAILURES))
            if not len(busy):
                break
            epochs = epoch if isinstance(epoch, int) else epoch[busy]
            words = noise_range(seed, epochs, ids[busy], _WORDS * _STAGE, first=_WORDS * stage)
            ours = self._attempts(grid, (state[0][busy], state[1][busy], state[2][busy]), words)
            for part, new in zip(state, ours, strict=True):
                part[busy] = new
        return state[0]

    def _attempts(self, grid: Grid, state: "_State", words: Any) -> "_State":
        """One attempt after the other for each block of four words."""
        areas, aspects, tops, lefts = block_words(words)
        roots = self._aspects().roots(aspects)
        for turn in range(areas.shape[1]):
            state = self._attempt(grid, state, (areas[:, turn], roots[:, turn], tops[:, turn], lefts[:, turn]))
        return state

    def _attempt(self, grid: Grid, state: "_State", draw: tuple[Any, Any, Any, Any]) -> "_State":
        bits, wanted, failures = state
        area_word, aspect_root, top_word, left_word = draw
        limit = wanted if self.max_block is None else wanted.clip(max=self.max_block)
        height, width = sides(grid, uniform_area(grid, self.min_block, limit, area_word), aspect_root)
        fits = ((height < grid.rows) | (grid.rows == 1)) & ((width < grid.cols) | (grid.cols == 1))
        top, left = offset(top_word, grid.rows - height), offset(left_word, grid.cols - width)
        new = block_bits(grid, top, left, height, width) & ~bits
        added = num_bits(new)
        placed = fits & (added > 0) & (added <= limit) & (failures < _FAILURES)
        return bits | new * placed[:, None, None], wanted - added * placed, (failures + 1) * ~placed


_State = tuple[Any, Any, Any]
"""What is painted, as bits [b, rows, c]; tokens still wanted [b]; failures in a row [b]."""
