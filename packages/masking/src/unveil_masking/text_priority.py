"""Text strategies that order content by a table with one entry per vocabulary entry.

* `TextSyntax`: CLIPA's syntax masking (arXiv:2305.07017): nouns before adjectives before verbs before the rest.
* `TextFrequency`: CLIPF (arXiv:2412.16148): the more frequent a word is in the corpus, the likelier it is removed.

Tables are data, not configuration: they are passed to `sample`, and live where the token ids live, so that nothing is
copied to a device per batch. They hold integers, so that NumPy and torch agree bit for bit.
Shapes: b captions, t tokens, v vocabulary entries.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unveil_masking._arrays import library, where_am_i
from unveil_masking._captions import TextStrategy, are_integers, check_captions, position_noise, token_kinds
from unveil_masking.errors import ScoreError
from unveil_masking.partition import Partition

__all__ = ["TextFrequency", "TextSyntax", "frequency_weights", "syntax_ranks"]

Array = TypeVar("Array")

_CERTAIN = 2**32  # the weight of a word that frequency gives no reason to remove
_MAX_RANK = 2**31 - 1
_SYNTAX_RANKS = (("NN", 1), ("JJ", 2), ("VB", 3))
_OTHER_RANK = 4


def syntax_ranks(vocabulary: Iterable[str], tag: Callable[[str], str]) -> NDArray[np.int64]:
    """Ranks for `TextSyntax`, int64 [v]: noun 1, adjective 2, verb 3, anything else 4.

    Args:
        vocabulary: the vocabulary's entries in the order of their ids, as words (strip marks such as `</w>` or `##`).
        tag: a tagger from word to Penn Treebank tag; NN*, JJ* and VB* are told apart by their first two letters. With
            NLTK: `lambda word: nltk.pos_tag([word])[0][1]`.
    """
    found = (tag(word)[:2] for word in vocabulary)
    return np.array([dict(_SYNTAX_RANKS).get(start, _OTHER_RANK) for start in found], dtype=np.int64)


def frequency_weights(counts: ArrayLike, threshold: float, *, min_count: int = 1) -> NDArray[np.int64]:
    """Weights for `TextFrequency`, int64 [v]: 2³² · min(1, √(threshold / frequency)), rounded.

    1 less this root is CLIPF's probability of masking a word, the one word2vec subsamples by. Entries seen fewer than
    `min_count` times get weight 0 and do not count as corpus, as in the code that CLIPF's authors released, where
    `min_count` is 5: they are removed first.

    Args:
        counts: occurrences in the corpus of each vocabulary entry [v], at least 0.
        threshold: the frequency at and below which a word has no reason to be removed, such as 1e-6; above 0.
        min_count: see above.

    Raises:
        ScoreError: counts that are no counts, a corpus without words, or a threshold outside (0, 1].
    """
    seen = np.asarray(counts)
    if seen.ndim != 1 or seen.dtype.kind not in "iu" or (seen < 0).any():
        raise ScoreError(
            f"counts have dtype {seen.dtype} and shape {seen.shape}. Give a one-dimensional array of integers of at "
            "least 0: how often each vocabulary entry occurs in the corpus."
        )
    if not 0 < threshold <= 1:
        raise ScoreError(f"threshold={threshold!r} is not a frequency in (0, 1]. Give one such as 1e-6.")
    known = seen >= max(min_count, 1)
    total = int(seen[known].sum())
    if total == 0:
        raise ScoreError(
            f"No entry of counts reaches min_count={min_count}. Count a larger corpus, or lower min_count."
        )
    chance = np.sqrt(np.minimum(1.0, threshold / (np.where(known, seen, 1) / total)))
    return np.where(known, np.rint(chance * _CERTAIN), 0).astype(np.int64)


@dataclass(frozen=True, slots=True)
class TextSyntax(TextStrategy):
    """Keep the content tokens of the best rank, the first ones where ranks are equal, in their original order.

    Nothing is drawn: seed, epoch and sample ids are taken so that all text strategies are called alike. open_clip ranks
    words of the caption before it makes tokens of them; a table by vocabulary entry is what CLIPA's own JAX code uses.
    Ranks [b, t] of a caption's words, repeated over their tokens, give the former.
    """

    def sample(
        self, token_ids: Array, sample_ids: Array, *, ranks: Array, seed: int = 0, epoch: int | Array = 0
    ) -> Partition[Array]:
        """The partition of each caption.

        Args:
            token_ids: integers [b, t], NumPy or torch, t ≥ length; the result has its library and device.
            sample_ids: int64 [b].
            ranks: integers in [0, 2³¹), smaller is kept first: [v] by vocabulary entry, as `syntax_ranks` makes them,
                or [b, t] by token.
            seed: not used.
            epoch: not used.

        Raises:
            TokenShapeError: `token_ids` are no integers [b, t] with t ≥ length, or live elsewhere than `sample_ids`.
            ScoreError: `ranks` do not fit `token_ids`.
        """
        ids, _ = check_captions(token_ids, sample_ids, self.length)
        return self._keep_smallest(token_kinds(ids, self), _by_token(ranks, ids, "ranks", _MAX_RANK))

    def _name(self) -> str:
        return "text_syntax"


@dataclass(frozen=True, slots=True)
class TextFrequency(TextStrategy):
    """Keep the content tokens with the largest sum of uniform noise and weight, in their original order.

    The noise is uniform in [0, 1) and the weight of a word of frequency f is min(1, √(threshold / f)), both in units of
    2⁻³²: `frequency_weights` makes the table. This is the rule of the code released by CLIPF's authors, on tokens.
    """

    def sample(
        self, token_ids: Array, sample_ids: Array, *, weights: Array, seed: int, epoch: int | Array = 0
    ) -> Partition[Array]:
        """The partition of each caption, a pure function of (its ids, weights, seed, epoch, sample id).

        Args:
            token_ids: integers [b, t], NumPy or torch, t ≥ length; the result has its library and device.
            sample_ids: int64 [b].
            weights: integers in [0, 2³²], larger is likelier to stay: [v] by vocabulary entry, as
                `frequency_weights` makes them, or [b, t] by token.
            seed: 0 ≤ seed < 2⁶⁴.
            epoch: one int, or int64 [b] aligned with `sample_ids`.

        Raises:
            TokenShapeError: `token_ids` are no integers [b, t] with t ≥ length, or live elsewhere than `sample_ids`.
            ScoreError: `weights` do not fit `token_ids`.
            KeyArrayError: a key has a wrong type, shape or range.
        """
        ids, keys = check_captions(token_ids, sample_ids, self.length)
        kinds = token_kinds(ids, self)
        worth = _by_token(weights, ids, "weights", _CERTAIN) + position_noise(kinds, keys, seed, epoch)
        return self._keep_smallest(kinds, 2 * _CERTAIN - worth)

    def _name(self) -> str:
        return "text_frequency"


def _by_token(table: Any, ids: Any, name: str, largest: int) -> Any:
    """`table` as int64 [b, t] in [0, largest].

    Values and ids are checked where that needs no wait for a device: NumPy, and torch on the CPU outside a compiled
    graph. Elsewhere values are clipped, and an id past the table is the library's own error.

    Raises:
        ScoreError: not integers, [v] or [b, t], in the range and in the library and on the device of `ids`.
    """
    xp: Any = library(table)
    if xp is None or where_am_i(table) != where_am_i(ids) or not are_integers(table):
        raise ScoreError(
            f"{name} are {where_am_i(table)} of dtype {getattr(table, 'dtype', None)}; token_ids {where_am_i(ids)}. "
            f"Give integers in [0, {largest}], in the library and on the device of token_ids."
        )
    if table.ndim != 1 and tuple(table.shape) != tuple(ids.shape):
        raise ScoreError(
            f"{name} have shape {tuple(table.shape)}. Give [v], one for each vocabulary entry, or {list(ids.shape)}, "
            "one for each token."
        )
    if xp is np or (table.device.type == "cpu" and not xp.compiler.is_compiling()):
        _check_values(table, ids, name, largest)
    whole = table.astype(np.int64) if xp is np else table.to(xp.int64)
    return xp.clip(whole[ids] if whole.ndim == 1 else whole, 0, largest)


def _check_values(table: Any, ids: Any, name: str, largest: int) -> None:
    if 0 in ids.shape:
        return
    if table.shape[0] == 0:
        raise ScoreError(f"{name} are empty. Give one for each entry of the vocabulary.")
    if int(table.min()) < 0 or int(table.max()) > largest:
        raise ScoreError(
            f"{name} lie in [{int(table.min())}, {int(table.max())}]. Allowed: [0, {largest}]; see `syntax_ranks` and "
            "`frequency_weights`."
        )
    if table.ndim == 1 and not 0 <= int(ids.min()) <= int(ids.max()) < table.shape[0]:
        raise ScoreError(
            f"token_ids lie in [{int(ids.min())}, {int(ids.max())}], but {name} have {table.shape[0]} entries. "
            "Make the table from the vocabulary of the tokenizer that made the ids."
        )
