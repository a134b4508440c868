"""Ratios from a range instead of one ratio, as DINOv2 (arXiv:2304.07193) and DINOv3 (2508.10104) use them."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from unveil_masking._arrays import arange, library
from unveil_masking._base import Share, Strategy, check_share
from unveil_masking._noise import noise
from unveil_masking.block import BlockMask
from unveil_masking.counts import check_ratio, floor_share, num_hidden
from unveil_masking.errors import CountError, KeyArrayError, RatioError
from unveil_masking.grid import Grid
from unveil_masking.strategies import RandomMask

__all__ = ["RatioRange", "Spread"]

Spread = Literal["batch", "sample"]
"""How ratios cover their range: evenly over each batch ("batch"), or at random for each sample ("sample")."""

_FIRST_INDEX = 2**32 - 4  # masks use indices below 2³¹, texts a few above
_WORD_BITS = 32


@dataclass(frozen=True, slots=True)
class RatioRange(Strategy):
    """Give every sample a ratio of its own between `low` and `high`, and draw its mask by `strategy`.

    A sample's count is hidden = ⌊n · ratio⌋. A share `masked` of the samples is masked at all; the others keep
    everything. Samples keep unequal numbers of tokens: use `pack`, or the mask.

    With `spread="batch"`, ⌊b · masked⌋ of b samples are masked, and their range is cut into as many equal parts, one
    for each, in which the ratio is uniform: DINOv2's rule. Which sample gets which part is drawn by the noise of its
    key, so that the masks of a batch do not depend on its order, but on which samples meet in it: give two crops of an
    image ids of their own. With `spread="sample"` nothing depends on the batch: each ratio is uniform in the range, and
    each sample masked with probability `masked`.

    Raises:
        RatioError: `low` or `high` outside [0, 1) or not in this order, or `masked` outside (0, 1].
        CountError: a strategy that cannot draw another count for each sample.
        KeyArrayError: an unknown spread, or a strategy that shares masks by itself: give `share` here.
    """

    strategy: RandomMask | BlockMask
    """What draws the masks; its ratio and rounding are not used. `BlockMask(exact=True)` is DINOv3's."""
    low: float = 0.1
    """Smallest ratio, in [0, 1)."""
    high: float = 0.5
    """Largest ratio, in [low, 1)."""
    spread: Spread = "batch"
    """How ratios cover their range, see `Spread`."""
    masked: float = 1.0
    """Share of samples that are masked at all, in (0, 1]; 0.5 in DINOv2 and DINOv3."""
    share: Share = "sample"
    """Who shares a mask, see `Share`; with "batch" there is one ratio, drawn as with `spread="sample"`."""

    def __post_init__(self) -> None:
        if not isinstance(self.strategy, (RandomMask, BlockMask)):
            raise CountError(
                f"{type(self.strategy).__name__} cannot hide another number of tokens in every sample. "
                "Allowed: RandomMask, BlockMask."
            )
        if self.strategy.share != "sample":
            raise KeyArrayError(
                f"the strategy of a RatioRange has share={self.strategy.share!r}. Leave it out there, and give "
                f"RatioRange(..., share={self.strategy.share!r})."
            )
        check_ratio(self.low, "floor_hidden")
        check_ratio(self.high, "floor_hidden")
        if self.low > self.high:
            raise RatioError(f"low={self.low} is above high={self.high}. Swap them.")
        if isinstance(self.masked, bool) or not isinstance(self.masked, (int, float)) or not 0 < self.masked <= 1:
            raise RatioError(f"masked={self.masked!r} is not a number in (0, 1]. It is the share of masked samples.")
        if self.spread not in get_args(Spread):
            raise KeyArrayError(f"spread={self.spread!r} is unknown. Allowed: {', '.join(get_args(Spread))}.")
        check_share(self.share)

    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the strategy; what `strategy` does is under its own names, with `of_` before them."""
        inner = {f"of_{name}": value for name, value in self.strategy.describe().items()}
        del inner["of_ratio"], inner["of_rounding"], inner["of_share"]
        return {
            "strategy": "ratio_range",
            "low": self.low,
            "high": self.high,
            "spread": self.spread,
            "masked": self.masked,
            "share": self.share,
            **inner,
        }

    def _hidden_range(self, grid: Grid) -> tuple[int, int]:
        fewest, most = self._bounds(grid)
        always = self.masked == 1 and (isinstance(self.strategy, RandomMask) or self.strategy.exact)
        return (fewest if always else 0), most

    def _bounds(self, grid: Grid) -> tuple[int, int]:
        self.strategy.hidden_range(grid)  # refuses a grid that it does not fit
        return num_hidden(grid.num, self.low, "floor_hidden"), num_hidden(grid.num, self.high, "floor_hidden")

    def _draw(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        words: Any = noise(seed, epoch, sample_ids, arange(4, sample_ids) + _FIRST_INDEX)
        place, is_masked = self._places(words)
        low, high = (floor_share(2**_WORD_BITS, side) for side in (self.low, self.high))
        ratio = low + ((place * (high - low)) >> _WORD_BITS)
        fewest, most = self._bounds(grid)
        hidden = ((grid.num * ratio) >> _WORD_BITS).clip(fewest, most) * is_masked
        return self.strategy.draw_hidden(grid, sample_ids, seed, epoch, hidden)

    def _places(self, words: Any) -> tuple[Any, Any]:
        """Where in the range each sample lies, int64 [b] in [0, 2³²), and whether it is masked at all, bool [b]."""
        batch, place = words.shape[0], words[:, 0]
        if self.spread == "sample" or self.share == "batch":
            return place, words[:, 1] < floor_share(2**_WORD_BITS, self.masked)
        num_masked = floor_share(batch, self.masked)
        rank = _rank((words[:, 2] << _WORD_BITS - 1) + (words[:, 3] >> 1))
        return ((rank << _WORD_BITS) + place) // max(num_masked, 1), rank < num_masked


def _rank(keys: Any) -> Any:
    """int64 [b]: how many of the keys [b] are smaller; equal ones in their order."""
    order = np.argsort(keys, kind="stable") if library(keys) is np else keys.argsort(stable=True)
    return order.argsort()
