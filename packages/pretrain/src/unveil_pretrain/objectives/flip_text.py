"""The captions of FLIP: from sentences to the pieces that the text tower sees, all of them or a part.

FLIP masks images only; text masking is its ablation (arXiv:2212.00794, table 1c), and the subject of CLIPA
(arXiv:2305.07017) and CLIPF (arXiv:2412.16148). FLIP drops pieces that already have their position; CLIPA and CLIPF
shorten the caption before the tower sees it, so that its pieces are numbered anew.

Shapes: b captions, t pieces, k pieces that stay, v entries of the vocabulary.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from unveil_backbones.tokenizer_base import CaptionTokenizer
from unveil_masking import (
    TextBlock,
    TextFrequency,
    TextPriority,
    TextRandom,
    TextSyntax,
    TextTruncate,
    frequency_weights,
    syntax_ranks,
    take_ids,
)

from unveil_pretrain.errors import ConfigError

__all__ = ["TABLES", "TextInput", "TextMasking", "frequency_table", "syntax_table", "vocabulary_words"]

TextMasking = Literal["none", "random", "priority", "truncate", "random_content", "block", "syntax", "frequency"]
"""Which pieces of a caption stay: all; FLIP's two ways, padding drawn like words or dropped first; CLIPA's four; the
rarer words (CLIPF)."""

TABLES: Final = ("syntax", "frequency")
"""Ways that need a number for each entry of the vocabulary."""

_FLIPS: Final = ("random", "priority")
_Strategy = TextTruncate | TextRandom | TextPriority | TextBlock | TextSyntax | TextFrequency


class TextInput:
    """Makes pieces of captions, and drops some of them in training."""

    def __init__(
        self, tokenizer: CaptionTokenizer, *, causal: bool, masking: TextMasking = "none", num_kept: int = 0
    ) -> None:
        """Join a tokenizer and a way of masking.

        Args:
            tokenizer: Makes rows of pieces.
            causal: Whether the tower is CLIP's, whose start and end of text always stay.
            masking: Which pieces stay in training.
            num_kept: How many.

        Raises:
            ConfigError: there are not as many pieces.
        """
        self.tokenizer = tokenizer
        self.masking: TextMasking = masking
        if masking != "none" and not 1 <= num_kept <= tokenizer.length:
            raise ConfigError(
                f"text_keep is {num_kept}, but captions have {tokenizer.length} pieces; give 1 to {tokenizer.length}"
            )
        # Start and end of text are the last two entries of CLIP's vocabulary.
        special = (tokenizer.vocab_size - 2, tokenizer.vocab_size - 1) if causal else ()
        self._strategy = _strategy(masking, num_kept, special, tokenizer.pad_id)

    def whole(self, captions: Sequence[str]) -> Int64[Tensor, "b t"]:
        """All pieces of each caption, on the CPU, where the tower wants them."""
        return self.tokenizer(captions)

    def masked(
        self,
        captions: Sequence[str],
        *,
        sample_ids: Int64[Tensor, " b"],
        epochs: Int64[Tensor, " b"],
        seed: int,
        table: Int64[Tensor, " v"] | None,
    ) -> tuple[Int64[Tensor, "b k"], Int64[Tensor, "b k"] | None]:
        """The pieces that stay, a function of (caption, seed, epoch, sample id), and their places if not 0, 1, 2, ...

        Args:
            captions: One per sample.
            sample_ids: Stable ids.
            epochs: The epoch in which each sample is seen.
            seed: Seed of the masks.
            table: What `syntax_table` or `frequency_table` gave, where the way of masking needs it.
        """
        ids, strategy = self.whole(captions), self._strategy
        if strategy is None:
            return ids, None
        keys, when = sample_ids.cpu(), epochs.cpu()
        if isinstance(strategy, TextSyntax | TextFrequency):
            if table is None:
                raise ConfigError(f"text_masking {self.masking} needs its table; build the objective from its settings")
            entries = table.cpu()
            if isinstance(strategy, TextSyntax):
                partition = strategy.sample(ids, keys, ranks=entries)
            else:
                partition = strategy.sample(ids, keys, weights=entries, seed=seed, epoch=when)
        else:
            partition = strategy.sample(ids, keys, seed=seed, epoch=when)
        return take_ids(ids, partition), partition.keep if self.masking in _FLIPS else None

    def describe(self) -> dict[str, str | int]:
        """What a passport says of the way of masking; nothing where captions are whole."""
        if self._strategy is None:
            return {}
        return {"text": self.masking, "text_keep": self._strategy.length}


def _strategy(masking: TextMasking, length: int, special: tuple[int, ...], pad_id: int) -> _Strategy | None:
    match masking:
        case "none":
            return None
        case "random":  # padding is drawn like words
            return TextRandom(length, special)
        case "priority":
            return TextPriority(length, special, pad_id)
        case "truncate":
            return TextTruncate(length, special, pad_id)
        case "random_content":
            return TextRandom(length, special, pad_id)
        case "block":
            return TextBlock(length, special, pad_id)
        case "syntax":
            return TextSyntax(length, special, pad_id)
        case "frequency":
            return TextFrequency(length, special, pad_id)


def vocabulary_words(tokenizer: CaptionTokenizer) -> list[str]:
    """The entries of a vocabulary in the order of their numbers, without the marks of word pieces."""
    record = json.loads(tokenizer.to_json())
    numbers: dict[str, int] = record["model"]["vocab"]
    words = [""] * tokenizer.vocab_size
    for piece, number in numbers.items():
        words[number] = piece.removeprefix("##").removesuffix("</w>")
    return words


def syntax_table(tokenizer: CaptionTokenizer, tags: Path) -> Int64[Tensor, " v"]:
    """Ranks of `TextSyntax` from a file with a word, a tabulator and its Penn Treebank tag on each line.

    Raises:
        ConfigError: the file cannot be read, or a line is something else.
    """
    try:
        lines = [line for line in tags.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"text_tags {tags} cannot be read ({error}); give a UTF-8 file of words and tags") from error
    pairs = [line.split("\t") for line in lines]
    wrong = next((line for line, pair in zip(lines, pairs, strict=True) if len(pair) != 2), None)
    if wrong is not None or not pairs:
        raise ConfigError(
            f"text_tags {tags} has the line {wrong!r}; a line is a word, a tabulator and its tag, as 'dog\tNN'"
        )
    known = {word.lower(): tag for word, tag in pairs}
    return torch.from_numpy(syntax_ranks(vocabulary_words(tokenizer), lambda word: known.get(word, "")))


def frequency_table(tokenizer: CaptionTokenizer, captions: Sequence[str], *, threshold: float) -> Int64[Tensor, " v"]:
    """Weights of `TextFrequency` from how often the pieces occur in these captions."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for start in range(0, len(captions), 4096):
        ids = tokenizer(captions[start : start + 4096]).numpy()
        counts += np.bincount(ids[ids != tokenizer.pad_id], minlength=tokenizer.vocab_size)
    return torch.from_numpy(frequency_weights(counts, threshold))
