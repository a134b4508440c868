"""A WordPiece tokenizer from a vocabulary file or trained on the captions at hand, on the ``tokenizers`` library.

FLIP uses BERT's lower-cased WordPiece vocabulary (30,522 pieces), a text file that its owner gives. A vocabulary
trained from one's own captions needs no file and fits small data. The JSON is the library's own format, and travels in
the checkpoint.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Int64
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from unveil_backbones.errors import TokenizerError
from unveil_backbones.tokenizer_base import fixed_rows, parse_tokenizer

__all__ = ["WordPieceTokenizer"]

_PAD = "[PAD]"
_UNKNOWN = "[UNK]"
_SPECIAL = (_PAD, _UNKNOWN)
_CONTINUATION = "##"
_LARGEST_ALPHABET = 1000


class WordPieceTokenizer:
    """Captions to fixed-length rows of word-piece numbers; 0 is padding.

    Make one with ``from_vocabulary``, ``train`` or ``from_json``.

    Attributes:
        length: Pieces per row.
        pad_id: Number of the padding piece.
    """

    pad_id = 0

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.length, fill = fixed_rows(tokenizer, "WordPieceTokenizer.train")
        if tokenizer.token_to_id(_PAD) != self.pad_id or fill != self.pad_id:
            raise TokenizerError(f"the tokenizer's {_PAD} is not piece 0; train it with WordPieceTokenizer.train")
        model = tokenizer.model
        if not isinstance(model, models.WordPiece) or model.token_to_id(model.unk_token) is None:
            raise TokenizerError(
                "the tokenizer is no WordPiece model with a piece for words that it does not know; train it with "
                "WordPieceTokenizer.train"
            )
        self._tokenizer = tokenizer

    @classmethod
    def from_vocabulary(cls, path: str | Path, length: int = 32) -> "WordPieceTokenizer":
        """Read a vocabulary file as BERT's ``vocab.txt``: one piece a line, its number is that of its line.

        As in FLIP, captions are lower-cased and get no ``[CLS]`` or ``[SEP]``.

        Args:
            path: The file; its first line is ``[PAD]``, and ``[UNK]`` is one of the others.
            length: Pieces per row (FLIP: 32).

        Raises:
            TokenizerError: The file cannot be read, has a piece twice or lacks a special one, or ``length`` is 0.
        """
        try:
            pieces = Path(path).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenizerError(f"{path} could not be read ({error}); give a vocabulary such as vocab.txt") from error
        pieces = [piece.rstrip("\r") for piece in (pieces[:-1] if pieces[-1] == "" else pieces)]
        repeated = [piece for piece, count in Counter(pieces).items() if count > 1]
        if pieces[:1] != [_PAD] or _UNKNOWN not in pieces or repeated:
            raise TokenizerError(
                f"{path} begins with {pieces[:1]}, {'has' if _UNKNOWN in pieces else 'lacks'} {_UNKNOWN} and repeats "
                f"{repeated[:3]}; a vocabulary has {_PAD} in line 1, {_UNKNOWN} somewhere and no piece twice; "
                "give BERT's vocab.txt or one like it"
            )
        return cls(_complete({piece: number for number, piece in enumerate(pieces)}, length))

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int, length: int = 32) -> "WordPieceTokenizer":
        """Learn word pieces from captions; equal captions give an equal tokenizer.

        Args:
            captions: Sentences; their order does not matter.
            vocab_size: Largest number of pieces, padding and the unknown word included.
            length: Pieces per caption (FLIP: 32).

        Raises:
            TokenizerError: There is no caption with a word, or a number is too small.
        """
        if length < 1 or vocab_size <= len(_SPECIAL):
            raise TokenizerError(
                f"vocabulary of {vocab_size} pieces, length {length}; there are {len(_SPECIAL)} special pieces and a "
                "caption has at least one; give larger numbers"
            )
        words = _word_counts(captions)
        if not words:
            raise TokenizerError("no caption holds a word; the vocabulary is learnt from captions; check the data")
        return cls(_complete(_learn(words, vocab_size), length))

    @classmethod
    def from_json(cls, text: str) -> "WordPieceTokenizer":
        """Read what ``to_json`` wrote.

        Raises:
            TokenizerError: The text is not a tokenizer, or not one with a fixed length and padding 0.
        """
        return cls(parse_tokenizer(text))

    def to_json(self) -> str:
        """Return vocabulary and rules in the JSON format of the ``tokenizers`` library."""
        return self._tokenizer.to_str()

    @property
    def vocab_size(self) -> int:
        """Number of pieces, padding and the unknown word included."""
        return self._tokenizer.get_vocab_size()

    def __call__(self, captions: Sequence[str]) -> Int64[Tensor, "b t"]:
        """Return the pieces of each caption, cut or padded to ``length``."""
        encodings = self._tokenizer.encode_batch(list(captions))
        return torch.tensor([encoding.ids for encoding in encodings], dtype=torch.int64).reshape(-1, self.length)


def _complete(vocabulary: dict[str, int], length: int) -> Tokenizer:
    """A tokenizer of fixed length around a vocabulary."""
    if length < 1:
        raise TokenizerError(f"length {length}; a caption has at least one piece; give a larger number")
    model = models.WordPiece(vocabulary, unk_token=_UNKNOWN, continuing_subword_prefix=_CONTINUATION)
    tokenizer = _with_rules(model)
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=WordPieceTokenizer.pad_id, pad_token=_PAD, length=length)
    return tokenizer


def _with_rules(model: models.Model) -> Tokenizer:
    """BERT's lower-casing, accent stripping and splitting at spaces and punctuation around a model."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _word_counts(captions: Iterable[str]) -> Counter[str]:
    rules = _with_rules(models.WordPiece(unk_token=_UNKNOWN))
    return Counter(
        word
        for caption in captions
        for word, _ in rules.pre_tokenizer.pre_tokenize_str(rules.normalizer.normalize_str(caption))
    )


def _learn(words: Counter[str], vocab_size: int) -> dict[str, int]:
    """Learn a vocabulary, the same for the same words.

    The library numbers continuation letters in the order of a hash map, which differs between processes, and breaks
    ties between merges by those numbers, so that even the set of pieces differs. Naming all letters to it beforehand,
    sorted, removes its freedom; words with letters too rare for the vocabulary are left out, as it would add those
    letters itself.
    """
    frequency: Counter[str] = Counter()
    for word, count in words.items():
        for letter in word:
            frequency[letter] += count
    room = min(_LARGEST_ALPHABET, max(1, (vocab_size - len(_SPECIAL)) // 2))
    letters = sorted(sorted(frequency, key=lambda letter: (-frequency[letter], letter))[:room])
    known = set(letters)
    pieces = [*_SPECIAL, *letters, *(_CONTINUATION + letter for letter in letters)]
    # Three pieces have no room for a letter's continuation: only words of one letter can be learned from.
    longest = max(map(len, words)) if len(pieces) <= vocab_size else 1
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=pieces[:vocab_size],
        continuing_subword_prefix=_CONTINUATION,
        show_progress=False,
    )
    tokenizer = _with_rules(models.WordPiece(unk_token=_UNKNOWN))
    kept = ([word] * count for word, count in sorted(words.items()) if known.issuperset(word) and len(word) <= longest)
    tokenizer.train_from_iterator(kept, trainer)
    return tokenizer.get_vocab()
