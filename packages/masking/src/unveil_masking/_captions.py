"""What text strategies share: captions in, special tokens and padding told from content, a budget spent in order.

The rule that every text strategy obeys: special tokens stay, then content as the strategy orders it, then padding,
until `length` tokens stay, in their original order. So a caption within the budget keeps all its content.

Shapes: b captions, t tokens.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from unveil_masking._arrays import arange, integers, library, sort, where_am_i
from unveil_masking._noise import noise
from unveil_masking.errors import CountError, TokenShapeError
from unveil_masking.grid import Grid
from unveil_masking.partition import Partition, partition_from_mask

__all__ = [
    "CONTENT",
    "PADDING",
    "SPECIAL",
    "TextStrategy",
    "are_integers",
    "check_captions",
    "position_noise",
    "token_kinds",
]

SPECIAL, CONTENT, PADDING = 0, 1, 2

_POSITION_BITS = 20  # a sort key is (kind, score, position) in 2 + 36 + 20 bits of a positive int64
_KIND_SHIFT = _POSITION_BITS + 36
_FIRST_INDEX = 2**31  # masks of grids use the indices below


@dataclass(frozen=True, slots=True)
class TextStrategy(ABC):
    """What all text strategies share: the budget, and which tokens are no content.

    Raises:
        CountError: the budget is not a positive int.
        TokenShapeError: an id is not an int of at least 0.
    """

    length: int
    """Number of tokens that stay, special ones included."""
    special_ids: tuple[int, ...] = ()
    """Ids that always stay, such as start and end of text. Should a caption have more than `length`, the first stay."""
    pad_id: int | None = None
    """Id of the padding at a caption's end; None if captions have none, or if it is to count as content.

    Padding is the run of this id at the end: an equal id before it is content, because CLIP pads with 0, which is also
    its "!". If it is one of `special_ids` too (tokenizers that pad with the end of text), the first of the run is the
    end of the text, hence special.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.length, int) or isinstance(self.length, bool) or self.length < 1:
            raise CountError(
                f"length={self.length!r} is not a positive int. Give the number of tokens that stay, "
                "special ones included, for example 16."
            )
        for token in (*self.special_ids, *(() if self.pad_id is None else (self.pad_id,))):
            if not isinstance(token, int) or isinstance(token, bool) or token < 0:
                raise TokenShapeError(
                    f"token id {token!r} in special_ids or pad_id is not an int of at least 0. "
                    "Give ids as the tokenizer makes them, for example special_ids=(49406, 49407), pad_id=0."
                )

    def describe(self) -> dict[str, str | int | list[int] | None]:
        """A JSON-able record of the strategy."""
        return {
            "strategy": self._name(),
            "length": self.length,
            "special_ids": list(self.special_ids),
            "pad_id": self.pad_id,
        }

    @abstractmethod
    def _name(self) -> str:
        """The strategy's name in records."""

    def _keep_smallest(self, kinds: Any, scores: Any) -> Partition[Any]:
        """The partition that keeps `length` tokens of each caption: by kind, then score, then position.

        Args:
            kinds: int64 [b, t], as `token_kinds` makes them.
            scores: int64 [b, t] in [0, 2³⁶).
        """
        position = arange(kinds.shape[1], kinds)
        keys = (kinds << _KIND_SHIFT) + (scores << _POSITION_BITS) + position
        last_kept = sort(keys)[:, self.length - 1, None]
        return partition_from_mask(keys > last_kept, self.length, Grid(1, kinds.shape[1]))


def check_captions(token_ids: Any, sample_ids: Any, length: int) -> tuple[Any, Any]:
    """Token ids as int64 [b, t] and sample ids as int64 [b], or a named error.

    Raises:
        TokenShapeError: `token_ids` are no integers [b, t] with length ≤ t < 2²⁰, or do not fit `sample_ids`.
        KeyArrayError: `sample_ids` are no integers [b].
    """
    keys = integers(sample_ids, "sample_ids")
    xp: Any = library(token_ids)
    if xp is None or token_ids.ndim != 2 or not are_integers(token_ids):
        raise TokenShapeError(
            f"token_ids is {where_am_i(token_ids)} of dtype {getattr(token_ids, 'dtype', None)} and shape "
            f"{tuple(getattr(token_ids, 'shape', ()))}. Give one row of integer token ids per caption, [b, t]."
        )
    if where_am_i(token_ids) != where_am_i(keys) or token_ids.shape[0] != keys.shape[0]:
        raise TokenShapeError(
            f"token_ids is {where_am_i(token_ids)} with {token_ids.shape[0]} captions but sample_ids is "
            f"{where_am_i(keys)} with {keys.shape[0]}. Give both in the same library, on the same device, one id each."
        )
    if not length <= token_ids.shape[1] < 2**_POSITION_BITS:
        raise TokenShapeError(
            f"token_ids has {token_ids.shape[1]} tokens a caption, from which length={length} cannot be kept. "
            f"Allowed: {length} to {2**_POSITION_BITS - 1} tokens. Pad the captions, or ask for fewer."
        )
    return (token_ids.astype(np.int64) if xp is np else token_ids.to(xp.int64)), keys


def token_kinds(ids: Any, strategy: TextStrategy) -> Any:
    """int64 [b, t]: `SPECIAL`, `CONTENT` or `PADDING` for each token."""
    xp: Any = library(ids)
    nowhere = ids != ids
    special, padding = nowhere, nowhere
    for token in strategy.special_ids:
        special = special | (ids == token)
    if strategy.pad_id is not None:
        other_until_here = xp.cumsum(ids != strategy.pad_id, 1)
        padding = other_until_here == other_until_here[:, -1:]  # nothing else follows …
        padding = padding & (ids == strategy.pad_id)  # … and this is not the last token of another kind itself
        if strategy.pad_id in strategy.special_ids:
            padding = padding & (xp.cumsum(padding, 1) > 1)
    return xp.where(padding, PADDING, xp.where(special, SPECIAL, CONTENT + 0 * ids))


def position_noise(kinds: Any, sample_ids: Any, seed: int, epoch: Any) -> Any:
    """int64 [b, t] in [0, 2³²): noise by position, from indices that no mask of a grid uses.

    So a caption's draw depends neither on how far it is padded nor on the image mask of the same sample id.
    """
    random_bits: Any = noise(seed, epoch, sample_ids, arange(kinds.shape[1], sample_ids) + _FIRST_INDEX)
    return random_bits


def are_integers(array: Any) -> bool:
    if library(array) is np:
        return array.dtype.kind in "iu"
    xp: Any = library(array)
    return not (array.is_floating_point() or array.is_complex() or array.dtype == xp.bool)
