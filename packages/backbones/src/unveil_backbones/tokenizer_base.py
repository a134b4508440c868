"""What every caption tokenizer offers, and the reading of their JSON."""

import json
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Int64
from tokenizers import Tokenizer
from torch import Tensor

from unveil_backbones.errors import TokenizerError

__all__ = ["CaptionTokenizer", "fixed_rows", "parse_tokenizer", "tokenizer_kind"]

_MOST_PIECES = 65_536  # a page of text; captions are cut to 32 or 77


@runtime_checkable
class CaptionTokenizer(Protocol):
    """Captions to rows of word-piece numbers of one length, without a network."""

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        ...

    @property
    def length(self) -> int:
        """Pieces of every row."""
        ...

    @property
    def pad_id(self) -> int:
        """Number that fills rows of shorter captions."""
        ...

    def __call__(self, captions: Sequence[str]) -> Int64[Tensor, "b t"]:
        """Return the pieces of each caption, cut or padded to ``length``."""
        ...

    def to_json(self) -> str:
        """Return everything that ``tokenizer_from_json`` needs to make it again."""
        ...


def parse_tokenizer(text: str) -> Tokenizer:
    """Read the JSON format of the ``tokenizers`` library.

    Raises:
        TokenizerError: The text is not complete JSON, or not of that format.
    """
    _parse(text)
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception for every kind of malformed content
        raise TokenizerError(f"the JSON is no tokenizer ({error}); write it with `to_json`") from error


def tokenizer_kind(text: str) -> str:
    """Return the type of the model in a tokenizer's JSON, such as ``WordPiece`` or ``BPE``.

    Raises:
        TokenizerError: The text is not complete JSON, or names no model type.
    """
    parsed = _parse(text)
    model = parsed.get("model") if isinstance(parsed, dict) else None
    kind = model.get("type") if isinstance(model, dict) else None
    if not isinstance(kind, str):
        raise TokenizerError("the JSON is no tokenizer (it names no model type); write it with `to_json`")
    return kind


def fixed_rows(tokenizer: Tokenizer, remedy: str) -> tuple[int, int]:
    """Return the one length that a tokenizer pads and cuts to, and the number it pads with.

    Raises:
        TokenizerError: It pads or cuts to no length, to two, or to one that no caption has.
    """
    truncation, padding = tokenizer.truncation, tokenizer.padding
    if truncation is None or padding is None or padding["length"] != truncation["max_length"] or truncation["stride"]:
        raise TokenizerError(
            f"the tokenizer pads and cuts to no fixed length; both have to be the same; make it with {remedy}"
        )
    length, multiple = truncation["max_length"], padding["pad_to_multiple_of"]
    # Rows are padded past the length to such a multiple, and the library ends the process if memory does not suffice.
    if length > _MOST_PIECES or (multiple and length % multiple):
        raise TokenizerError(
            f"the tokenizer makes rows of {length} pieces, padded to a multiple of {multiple}; at most {_MOST_PIECES} "
            f"and a multiple that divides them are allowed; make it with {remedy}"
        )
    return length, padding["pad_id"]


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter for thousands of nested brackets
        raise TokenizerError(f"the tokenizer is not complete JSON ({error}); copy the checkpoint again") from error
