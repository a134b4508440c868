"""Text strategies on captions of a few words: what is shown of them, and the tables they need.

A word is a token here; a tokenizer would make several of some. Frequencies are counted in the captions below.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from unveil_masking.partition import Partition
from unveil_masking.show.tiles import counts_in_words
from unveil_masking.text import TextBlock, TextPriority, TextRandom, TextTruncate
from unveil_masking.text_priority import TextFrequency, TextSyntax, frequency_weights, syntax_ranks

__all__ = ["LENGTH", "TEXT_EXHIBITS", "Reading", "TextExhibit", "read_captions"]

LENGTH = 9
"""Budget of tokens in all exhibits, start and end included."""
_PADDED = 16
_START, _END, _PAD = "[start]", "[end]", "[pad]"
_SPECIAL_IDS, _PAD_ID = (1, 2), 0
_CAPTIONS = (
    "a photo of the old temple above green trees under a clear sky",
    "a red roof of the temple",
    "the sky above a row of trees",
    "visitors climb the steep stairs of a temple to see the lake",
)
_NOUNS = ("photo", "temple", "trees", "sky", "roof", "row", "visitors", "stairs", "lake")
_TAGS: dict[str, str] = {
    **dict.fromkeys(_NOUNS, "NN"),
    **dict.fromkeys(("old", "green", "clear", "red", "steep"), "JJ"),
    **dict.fromkeys(("climb", "see"), "VB"),
}
_THRESHOLD = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Lines of words, and which of them are hidden. Shapes: b lines, t tokens."""

    words: tuple[tuple[str, ...], ...]
    """[b, t]."""
    masks: np.ndarray[Any, np.dtype[np.bool_]]
    """Bool [b, t], True = removed."""
    caption: str
    """What was drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextExhibit:
    """One text strategy and how it is drawn."""

    name: str
    """As on the command line, and as `describe()["strategy"]` says."""
    source: str
    """Where it comes from, in a few words."""
    rule: str
    """What is kept."""
    sample: Callable[[np.ndarray, np.ndarray, int], Partition[Any]]
    """The partition for token ids [b, t], sample ids [b] and a seed."""

    def draw(self, seed: int) -> Reading:
        """The partition of a long caption drawn twice, and of a short one.

        Raises:
            MaskingError: the seed is out of range.
        """
        ids = _token_ids()[[0, 0, 1]]
        part = self.sample(ids, np.arange(len(ids)), seed)
        names = {number: word for word, number in _vocabulary().items()}
        said = counts_in_words(part.mask.sum(1), part.grid.num).replace("hides", "removes")
        words = tuple(tuple(names[token] for token in line) for line in ids.tolist())
        return Reading(words=words, masks=part.mask, caption=said)


def read_captions() -> tuple[str, ...]:
    """The captions whose words are counted."""
    return _CAPTIONS


def _vocabulary() -> dict[str, int]:
    """Ids of words, in the order of their first appearance."""
    words = dict.fromkeys(word for caption in _CAPTIONS for word in caption.split())
    return {word: number for number, word in enumerate((_PAD, _START, _END, *words))}


def _token_ids() -> np.ndarray:
    """int64 [captions, t]: start, words, end, padding."""
    vocabulary = _vocabulary()
    lines = [[_START, *caption.split(), _END] for caption in _CAPTIONS]
    return np.array([[vocabulary[word] for word in (line + [_PAD] * _PADDED)[:_PADDED]] for line in lines])


def _syntax(ids: np.ndarray, sample_ids: np.ndarray, seed: int) -> Partition[Any]:
    ranks = syntax_ranks(_vocabulary(), lambda word: _TAGS.get(word, "other"))
    return TextSyntax(LENGTH, _SPECIAL_IDS, _PAD_ID).sample(ids, sample_ids, ranks=ranks, seed=seed)


def _frequency(ids: np.ndarray, sample_ids: np.ndarray, seed: int) -> Partition[Any]:
    counts = np.bincount(_token_ids().ravel(), minlength=len(_vocabulary()))
    counts[[_PAD_ID, *_SPECIAL_IDS]] = 0
    weights = frequency_weights(counts, _THRESHOLD)
    return TextFrequency(LENGTH, _SPECIAL_IDS, _PAD_ID).sample(ids, sample_ids, weights=weights, seed=seed)


TEXT_EXHIBITS: tuple[TextExhibit, ...] = (
    TextExhibit(
        name="text_truncate",
        source="CLIPA",
        rule="the first content tokens",
        sample=lambda ids, keys, seed: TextTruncate(LENGTH, _SPECIAL_IDS, _PAD_ID).sample(ids, keys, seed=seed),
    ),
    TextExhibit(
        name="text_random",
        source="CLIPA, FLIP table 1c",
        rule="content tokens at random, in their order",
        sample=lambda ids, keys, seed: TextRandom(LENGTH, _SPECIAL_IDS, _PAD_ID).sample(ids, keys, seed=seed),
    ),
    TextExhibit(
        name="text_block",
        source="CLIPA",
        rule="one contiguous span of content",
        sample=lambda ids, keys, seed: TextBlock(LENGTH, _SPECIAL_IDS, _PAD_ID).sample(ids, keys, seed=seed),
    ),
    TextExhibit(
        name="text_priority",
        source="FLIP table 1c",
        rule="content at random before padding at random",
        sample=lambda ids, keys, seed: TextPriority(LENGTH, _SPECIAL_IDS, _PAD_ID).sample(ids, keys, seed=seed),
    ),
    TextExhibit(
        name="text_syntax",
        source="CLIPA",
        rule="nouns before adjectives before verbs before the rest",
        sample=_syntax,
    ),
    TextExhibit(
        name="text_frequency",
        source="CLIPF",
        rule="the rarer a word, the likelier it stays",
        sample=_frequency,
    ),
)
"""Everything that shortens captions, in the order of the gallery."""
