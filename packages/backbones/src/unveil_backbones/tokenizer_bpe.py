"""CLIP's byte-pair tokenizer (Radford et al., arXiv 2103.00020), on the ``tokenizers`` library.

Captions are repaired, unescaped, lower-cased and split into words as in the released code; each word's bytes are merged
by the vocabulary's rules. That vocabulary is a data file of the ``open_clip_torch`` package, read without importing it;
the tokenizer's JSON holds it, so that a checkpoint needs no other file.
"""

import gzip
import html
import importlib.util
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Int64
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from unveil_backbones.errors import TokenizerError
from unveil_backbones.tokenizer_base import fixed_rows, parse_tokenizer

__all__ = ["BpeTokenizer"]

_START = "<start_of_text>"
_END = "<end_of_text>"
_WORD_END = "</w>"
_NUM_MERGES = 49_408 - 2 * 256 - 2
"""The file holds more rules than the published models use."""
_LARGEST_FILE = 64 * 2**20
_DATA_PACKAGE = "open_clip"
_DATA_FILE = "bpe_simple_vocab_16e6.txt.gz"
_INSTALL = "pip install 'unveil-backbones[clip]'"
_REMEDY = "BpeTokenizer.from_open_clip"
_WORDS = rf"{_START}|{_END}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+"


class BpeTokenizer:
    """Captions to fixed-length rows: start of text, pieces, end of text, zeros.

    A caption that is too long loses its last pieces, never its end of text, which has the largest number of the
    vocabulary. Make one with ``from_open_clip``, ``from_file`` or ``from_json``.

    Attributes:
        length: Pieces per row.
        pad_id: Number that fills rows; also that of the piece "!", as in the published models.
    """

    pad_id = 0

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._words = _word_splitter()
        self.length, _ = fixed_rows(tokenizer, _REMEDY)
        self._tokenizer = tokenizer
        start, end = (tokenizer.token_to_id(token) for token in (_START, _END))
        empty = tokenizer.encode([], is_pretokenized=True).ids
        if empty != [start, end, *[self.pad_id] * (self.length - 2)] or end != self.vocab_size - 1:
            raise TokenizerError(
                f"the tokenizer makes {empty} of an empty caption; it has to be {_START}, {_END} (the last piece) and "
                f"zeros; make it with {_REMEDY}"
            )

    @classmethod
    def from_open_clip(cls, length: int = 77) -> "BpeTokenizer":
        """Take the vocabulary that the installed ``open_clip_torch`` brings.

        Args:
            length: Pieces per row (CLIP: 77).

        Raises:
            TokenizerError: The package is not installed, or ``length`` is too small.
        """
        spec = importlib.util.find_spec(_DATA_PACKAGE)
        folders = [] if spec is None else list(spec.submodule_search_locations or [])
        found = [Path(folder) / _DATA_FILE for folder in folders if (Path(folder) / _DATA_FILE).is_file()]
        if not found:
            raise TokenizerError(
                f"the vocabulary {_DATA_FILE} is a file of open_clip_torch, which is not installed; {_INSTALL}, or "
                "give the file to BpeTokenizer.from_file"
            )
        return cls.from_file(found[0], length)

    @classmethod
    def from_file(cls, path: str | Path, length: int = 77) -> "BpeTokenizer":
        """Read merge rules: a title line, then one pair of pieces a line, most frequent first; may be gzipped.

        Args:
            path: The file.
            length: Pieces per row (CLIP: 77).

        Raises:
            TokenizerError: The file cannot be read or is no list of merges, or ``length`` is too small.
        """
        if length < 2:
            raise TokenizerError(f"length {length}; start and end of text are two pieces; give at least 2")
        merges = _read_merges(Path(path))
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        pieces = [*letters, *(letter + _WORD_END for letter in letters)]
        _check_merges(merges, set(pieces), path)
        pieces += ["".join(pair) for pair in merges]
        numbers = {piece: number for number, piece in enumerate([*pieces, _START, _END])}
        tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=merges, end_of_word_suffix=_WORD_END))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.add_special_tokens([_START, _END])
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{_START} $A {_END}", special_tokens=[(token, numbers[token]) for token in (_START, _END)]
        )
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(pad_id=cls.pad_id, pad_token=pieces[cls.pad_id], length=length)
        return cls(tokenizer)

    @classmethod
    def from_json(cls, text: str) -> "BpeTokenizer":
        """Read what ``to_json`` wrote.

        Raises:
            TokenizerError: The text is not such a tokenizer, or the extra ``clip`` is not installed.
        """
        return cls(parse_tokenizer(text))

    def to_json(self) -> str:
        """Return vocabulary and rules in the JSON format of the ``tokenizers`` library.

        The cleaning and splitting of captions before the library's part are those of this class.
        """
        return self._tokenizer.to_str()

    @property
    def vocab_size(self) -> int:
        """Number of pieces, start and end of text included."""
        return self._tokenizer.get_vocab_size()

    def __call__(self, captions: Sequence[str]) -> Int64[Tensor, "b t"]:
        """Return the pieces of each caption, cut or padded to ``length``."""
        words = [self._words(caption) for caption in captions]
        encodings = self._tokenizer.encode_batch(words, is_pretokenized=True)
        return torch.tensor([encoding.ids for encoding in encodings], dtype=torch.int64).reshape(-1, self.length)


def _word_splitter() -> Callable[[str], list[str]]:
    """The released code's cleaning and its words.

    The classes of letters come from ``regex`` and not from the ``tokenizers`` library's own expressions: the two know
    different versions of Unicode.
    """
    try:
        import ftfy
        import regex
    except ImportError as error:
        raise TokenizerError(f"CLIP's tokenizer cleans captions with ftfy and regex ({error}); {_INSTALL}") from error
    pattern = regex.compile(_WORDS, regex.IGNORECASE)

    def split(caption: str) -> list[str]:
        # Twice, because web captions hold entities of entities ("&amp;quot;").
        readable = html.unescape(html.unescape(ftfy.fix_text(caption)))
        return pattern.findall(" ".join(readable.split()).lower())

    return split


def _read_merges(path: Path) -> list[tuple[str, str]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
        lines = content.decode("utf-8").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path} could not be read ({error}); give the {_DATA_FILE} of open_clip") from error
    if len(content) > _LARGEST_FILE:
        raise TokenizerError(f"{path} holds more than {_LARGEST_FILE} bytes; give the {_DATA_FILE} of open_clip")
    pairs = [line.split() for line in lines[1 : _NUM_MERGES + 1] if line]
    wrong = next((pair for pair in pairs if len(pair) != 2), None)
    if not pairs or wrong is not None:
        raise TokenizerError(
            f"{path} has the line {wrong}; after its title every line is two pieces to merge; give the {_DATA_FILE} "
            "of open_clip"
        )
    return [(first, second) for first, second in pairs]


def _check_merges(merges: Sequence[tuple[str, str]], known: set[str], path: str | Path) -> None:
    """Refuse rules that join unknown pieces or make a known one again; numbers would no longer be those of a model."""
    for first, second in merges:
        joined = first + second
        if first not in known or second not in known or joined in known:
            raise TokenizerError(
                f"{path} merges {first!r} and {second!r}, which are not both known before it or make {joined!r} twice; "
                f"rules build on those above them; give the {_DATA_FILE} of open_clip"
            )
        known.add(joined)
