"""Masks guided by a score for each token, such as a teacher's attention or a predicted loss.

The scores come from the caller, so that one class serves attention-guided masking (AttMask, arXiv:2203.12719; MILAN,
2208.06049), hard patches by their predicted loss (HPM, 2304.05919) and semantic parts (SemMAE, 2206.10207).
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from unveil_masking._arrays import arange, integers, sort
from unveil_masking._base import Share, Strategy, check_share
from unveil_masking._fixed_point import FRACTION_BITS, gumbel
from unveil_masking._noise import noise_range
from unveil_masking._scores import check_scores, fixed_point, in_order, meet
from unveil_masking._select import hide_largest, unique
from unveil_masking.counts import Rounding, check_ratio, floor_share, num_hidden
from unveil_masking.errors import RatioError, ScoreError
from unveil_masking.grid import Grid
from unveil_masking.partition import Partition

__all__ = ["Choice", "Easy", "GuidedMask"]

Array = TypeVar("Array")

Choice = Literal["top", "gumbel"]
"""How scores choose: the largest ones ("top"), or by chance ("gumbel"), without replacement, with weight exp(score)."""

Easy = Literal["lowest", "random"]
"""What the easy tokens are: those of the lowest scores, or any that the scores did not choose."""

_TEMPERATURES = (1e-6, 1e6)


@dataclass(frozen=True, slots=True)
class GuidedMask(Strategy):
    """Hide the tokens with the largest scores, or likelier ones; hidden as `RandomMask`, exactly.

    A share `easy` of the hidden tokens, ⌊hidden · easy⌋ of them, is not chosen for its scores: with "random" they are
    drawn from all the others (HPM goes from easy to hard by lowering this share as it trains), with "lowest" they are
    the tokens of the smallest scores. Make a new strategy for each value of a schedule: it is a value, and free.

    Scores are compared as float32, and equal ones ordered by noise, so that NumPy and torch agree bit for bit. To hide
    the smallest, give −scores. With `choice="gumbel"` they are logits: give log(attention) for attention, and the
    hidden tokens are those of the largest score / temperature + Gumbel noise, which draws without replacement (Kool et
    al., arXiv:1903.06059, section 2). A low temperature comes near "top", a high one near `RandomMask`.

    Raises:
        RatioError: a ratio, share of easy tokens or temperature out of range, or an unknown rounding rule.
        ScoreError: an unknown `choice` or `easy_from`; (on sampling) scores that do not fit.
    """

    ratio: float
    """Share of tokens to hide, in [0, 1); read as its shortest decimal."""
    choice: Choice = "top"
    """How scores choose, see `Choice`."""
    temperature: float = 1.0
    """What scores are divided by before Gumbel noise is added, in [1e-6, 1e6]; "top" does not use it."""
    easy: float = 0.0
    """Share of the hidden tokens that scores do not choose, in [0, 1]."""
    easy_from: Easy = "random"
    """What these are, see `Easy`."""
    rounding: Rounding = "floor_keep"
    """How the count is rounded, see `unveil_masking.counts`."""
    share: Share = "sample"
    """Who shares a mask, see `Share`; it says which scores are wanted, see `sample`."""

    def __post_init__(self) -> None:
        check_ratio(self.ratio, self.rounding)
        check_share(self.share)
        for name, value, (low, high) in (
            ("temperature", self.temperature, _TEMPERATURES),
            ("easy", self.easy, (0, 1)),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise RatioError(f"{name}={value!r} is not a number in [{low}, {high}].")
        for name, value, allowed in (("choice", self.choice, Choice), ("easy_from", self.easy_from, Easy)):
            if value not in get_args(allowed):
                raise ScoreError(f"{name}={value!r} is unknown. Allowed: {', '.join(get_args(allowed))}.")

    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the strategy."""
        return {
            "strategy": "guided",
            "ratio": self.ratio,
            "choice": self.choice,
            "temperature": self.temperature,
            "easy": self.easy,
            "easy_from": self.easy_from,
            "rounding": self.rounding,
            "share": self.share,
        }

    def sample(
        self, grid: Grid, sample_ids: Array, *, seed: int, epoch: int | Array = 0, scores: Array | None = None
    ) -> Partition[Array]:
        """The partition of each sample, a pure function of (its scores, seed, epoch, sample id).

        Args:
            grid: the token grid.
            sample_ids: int64 [b], NumPy or torch; the result has its library and device.
            seed: 0 ≤ seed < 2⁶⁴.
            epoch: one int, or int64 [b] aligned with `sample_ids`. Validation uses one fixed epoch.
            scores: floats, largest hidden first, where the ids live: [b, n]; with `share="clip"` [b, rows · cols],
                one slot's; with `share="batch"` [1, n]. No gradient flows to them. They must not be NaN, which is
                checked where that needs no wait for a device; elsewhere a NaN counts as +∞.

        Raises:
            ScoreError: scores are missing or do not fit.
            MaskingError: the ratio does not fit this grid, or a key has a wrong type, shape or range.
        """
        ids: Any = integers(sample_ids, "sample_ids")
        rows = 1 if self.share == "batch" else ids.shape[0]
        width = grid.image.num if self.share == "clip" else grid.num
        checked = check_scores(scores, ids, (rows, width))

        def draw(layout: Grid, ids: Any, seed: int, epoch: Any) -> Any:
            return self._hide(layout, ids, seed, epoch, meet(checked, ids))

        return self._partition(draw, grid, ids, seed, epoch)

    def _hidden_range(self, grid: Grid) -> tuple[int, int]:
        hidden = num_hidden(grid.num, self.ratio, self.rounding)
        return hidden, hidden

    def _draw(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        raise ScoreError("a guided mask is drawn from scores. Call `sample` with `scores=`.")

    def _hide(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any, scores: Any) -> Any:
        """Bool [b, n] from float32 scores [b, n]."""
        hidden = self._hidden_range(grid)[1]
        easy = floor_share(hidden, self.easy)
        at_random = easy > 0 and self.easy_from == "random"
        words: Any = noise_range(seed, epoch, sample_ids, grid.num * (1 + at_random))
        keys = self._keys(scores, words[:, : grid.num])
        ordered = sort(keys)
        mask = keys > ordered[:, grid.num - 1 - (hidden - easy), None]
        if at_random:
            # Those that scores chose first, then the others by noise: one order for both.
            return hide_largest(unique((words[:, grid.num :] >> 1) + mask * 2**31), hidden)
        return mask | (keys < ordered[:, easy, None]) if easy else mask

    def _keys(self, scores: Any, words: Any) -> Any:
        """int64 [b, n], ordered as tokens are to be hidden, no two of a sample equal: the low bits are the index."""
        index_bits = (scores.shape[1] - 1).bit_length()
        if self.choice == "top":
            values = (in_order(scores) << 31 - index_bits) + (words >> 1 + index_bits)
        else:
            values = fixed_point(scores, self.temperature, FRACTION_BITS, 61 - index_bits) + gumbel(words)
        return (values << index_bits) + arange(scores.shape[1], values)
