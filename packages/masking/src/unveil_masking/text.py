"""Shorter captions: which of t token ids stay when a text tower is given a budget of `length` of them.

* `TextTruncate`, `TextRandom`, `TextBlock`: text reductions of CLIPA (arXiv:2305.07017).
* `TextPriority`: FLIP's prioritised text masking (arXiv:2212.00794, table 1c).

`TextSyntax` and `TextFrequency` order tokens by a table: see `text_priority.py`. All obey the rule of `_captions.py`:
special tokens stay, then content, then padding. There is no `share` here: content lies elsewhere in every caption, so
no mask fits two of them. Shapes: b captions, t tokens, k = length.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from unveil_masking._arrays import library, where_am_i
from unveil_masking._captions import CONTENT, SPECIAL, TextStrategy, check_captions, position_noise, token_kinds
from unveil_masking.errors import TokenShapeError
from unveil_masking.partition import Partition

__all__ = ["DrawnTextStrategy", "TextBlock", "TextPriority", "TextRandom", "TextTruncate", "take_ids"]

Array = TypeVar("Array")


def take_ids(token_ids: Array, partition: Partition[Array]) -> Array:
    """The kept token ids in their original order, [b, t] → [b, k], for a text tower of context length k.

    Raises:
        TokenShapeError: the ids do not fit the partition or live elsewhere.
    """
    ids: Any = token_ids
    keep: Any = partition.keep
    if where_am_i(ids) != where_am_i(keep) or tuple(ids.shape) != (keep.shape[0], partition.grid.num):
        raise TokenShapeError(
            f"token_ids is {where_am_i(ids)} of shape {tuple(getattr(ids, 'shape', ()))}. This partition needs "
            f"[{keep.shape[0]}, {partition.grid.num}] on {where_am_i(keep)}: the captions it was sampled for."
        )
    kept: Any = np.take_along_axis(ids, keep, 1) if library(ids) is np else ids.take_along_dim(keep, 1)
    return kept


@dataclass(frozen=True, slots=True)
class DrawnTextStrategy(TextStrategy):
    """A text strategy that needs nothing but the ids and the noise."""

    def sample(self, token_ids: Array, sample_ids: Array, *, seed: int, epoch: int | Array = 0) -> Partition[Array]:
        """The partition of each caption, a pure function of (its ids, seed, epoch, sample id).

        Args:
            token_ids: integers [b, t], NumPy or torch, t ≥ length; the result has its library and device.
            sample_ids: int64 [b].
            seed: 0 ≤ seed < 2⁶⁴.
            epoch: one int, or int64 [b] aligned with `sample_ids`.

        Returns:
            A partition on `Grid(1, t)` that keeps `length` tokens of every caption.

        Raises:
            TokenShapeError: `token_ids` are no integers [b, t] with t ≥ length, or live elsewhere than `sample_ids`.
            KeyArrayError: a key has a wrong type, shape or range.
        """
        ids, keys = check_captions(token_ids, sample_ids, self.length)
        kinds = token_kinds(ids, self)
        return self._keep_smallest(kinds, self._scores(kinds, keys, seed, epoch))

    @abstractmethod
    def _scores(self, kinds: Any, sample_ids: Any, seed: int, epoch: Any) -> Any:
        """int64 [b, t] in [0, 2³⁶): tokens of a kind stay in ascending order of it."""


@dataclass(frozen=True, slots=True)
class TextTruncate(DrawnTextStrategy):
    """Keep the first tokens of the content: what truncation by a tokenizer does."""

    def _scores(self, kinds: Any, sample_ids: Any, seed: int, epoch: Any) -> Any:
        return 0 * kinds

    def _name(self) -> str:
        return "text_truncate"


@dataclass(frozen=True, slots=True)
class TextRandom(DrawnTextStrategy):
    """Keep content tokens drawn at random without replacement, in their original order.

    With `pad_id=None` padding is drawn like content: FLIP's "random" text masking (table 1c).
    """

    def _scores(self, kinds: Any, sample_ids: Any, seed: int, epoch: Any) -> Any:
        return (kinds == CONTENT) * position_noise(kinds, sample_ids, seed, epoch)

    def _name(self) -> str:
        return "text_random"


@dataclass(frozen=True, slots=True)
class TextPriority(DrawnTextStrategy):
    """Remove padding first, then content, each at random: FLIP's "prioritised" text masking (table 1c).

    It differs from `TextRandom` only in the padding that stays in a short caption: some of it at random, where
    `TextRandom` keeps the first. Towers that attend to padding see other positions.

    Raises:
        TokenShapeError: `pad_id` is missing.
    """

    def __post_init__(self) -> None:
        TextStrategy.__post_init__(self)
        if self.pad_id is None:
            raise TokenShapeError(
                "TextPriority removes padding first, so it needs pad_id, for example pad_id=0. "
                "For captions without padding use TextRandom, which draws content the same way."
            )

    def _scores(self, kinds: Any, sample_ids: Any, seed: int, epoch: Any) -> Any:
        return (kinds != SPECIAL) * position_noise(kinds, sample_ids, seed, epoch)

    def _name(self) -> str:
        return "text_priority"


@dataclass(frozen=True, slots=True)
class TextBlock(DrawnTextStrategy):
    """Keep one contiguous span of the content, its start uniform over those that fit (to within 2⁻³² per start)."""

    def _scores(self, kinds: Any, sample_ids: Any, seed: int, epoch: Any) -> Any:
        xp: Any = library(kinds)
        content = kinds == CONTENT
        rank = xp.cumsum(content, 1)  # 1 for the first content token
        budget = xp.clip(self.length - (kinds == SPECIAL).sum(1), 0, self.length)
        surplus = xp.clip(rank[:, -1] - budget, 0, kinds.shape[1])
        random_bits = position_noise(kinds, sample_ids, seed, epoch)[:, 0]
        start = random_bits * (surplus + 1) >> 32
        inside = (rank > start[:, None]) & (rank <= (start + budget)[:, None])
        return xp.where(inside, 0 * kinds, 1)

    def _name(self) -> str:
        return "text_block"
