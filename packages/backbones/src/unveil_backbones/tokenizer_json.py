"""The tokenizer of a checkpoint, whichever it is."""

from collections.abc import Mapping
from types import MappingProxyType

from unveil_backbones.errors import TokenizerError
from unveil_backbones.tokenizer import WordPieceTokenizer
from unveil_backbones.tokenizer_base import CaptionTokenizer, tokenizer_kind
from unveil_backbones.tokenizer_bpe import BpeTokenizer

__all__ = ["tokenizer_from_json"]

_KINDS: Mapping[str, type[WordPieceTokenizer] | type[BpeTokenizer]] = MappingProxyType(
    {"WordPiece": WordPieceTokenizer, "BPE": BpeTokenizer}
)


def tokenizer_from_json(text: str) -> CaptionTokenizer:
    """Read what any tokenizer's ``to_json`` wrote; the model type in it decides which.

    Raises:
        TokenizerError: The text is no tokenizer of this package.
    """
    kind = tokenizer_kind(text)
    if kind not in _KINDS:
        raise TokenizerError(f"the tokenizer is a {kind} model; there are {', '.join(_KINDS)}; write it with `to_json`")
    return _KINDS[kind].from_json(text)
