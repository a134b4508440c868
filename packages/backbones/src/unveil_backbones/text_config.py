"""The shape of a text tower: FLIP's (bidirectional, first token) and CLIP's (causal, end-of-text token) and between.

Sources: Li et al., arXiv 2212.00794, table 9 and its released code; Radford et al., arXiv 2103.00020, section 2.4.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from unveil_backbones._json import JSON, Fields, choice_of, read_bool, read_float, read_int
from unveil_backbones.errors import ConfigError

__all__ = ["TextActivation", "TextConfig", "TextPooling"]

TextPooling = Literal["first", "eot"]
"""Which token is the caption's vector: the first, or the end of text, which has the largest number of a row."""

TextActivation = Literal["gelu", "quick_gelu"]
"""``quick_gelu`` is ``x * sigmoid(1.702 x)``, with which OpenAI's CLIP was trained."""

_POOLINGS: tuple[TextPooling, ...] = ("first", "eot")
_ACTIVATIONS: tuple[TextActivation, ...] = ("gelu", "quick_gelu")
_read_pooling: Callable[[JSON, str], TextPooling] = choice_of(_POOLINGS)
_read_activation: Callable[[JSON, str], TextActivation] = choice_of(_ACTIVATIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """Shape of a text tower; the defaults are FLIP's."""

    vocab_size: int
    """Number of word pieces."""
    length: int
    """Word pieces per caption; shorter captions are padded, longer ones cut."""
    width: int
    """Width of the tokens."""
    depth: int
    """Number of blocks."""
    num_heads: int
    """Attention heads of each block."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over ``width``."""
    causal: bool = False
    """Whether a token sees itself and those before it only (CLIP)."""
    pooling: TextPooling = "first"
    """Which token is the caption's vector."""
    activation: TextActivation = "gelu"
    """Between the two layers of the MLP."""
    norm_epsilon: float = 1e-6
    """Added to the variance in every LayerNorm; CLIP has 1e-5."""
    attend_padding: bool = True
    """Whether padding is attended like any other token, as in FLIP's released code."""
    pad_id: int = 0
    """Number of the padding piece; read only if padding is not attended."""

    def __post_init__(self) -> None:
        if min(self.vocab_size, self.length, self.depth, self.num_heads) < 1 or self.width % self.num_heads:
            raise ConfigError(
                f"{self}; vocabulary, length, depth and heads are at least 1 and the width is a multiple of the heads; "
                "change the one that is not"
            )
        for field, value, allowed in (
            ("pooling", self.pooling, _POOLINGS),
            ("activation", self.activation, _ACTIVATIONS),
        ):
            if value not in allowed:
                raise ConfigError(f"{field} {value!r}; there are {', '.join(allowed)}; choose one of them")
        if not self.norm_epsilon > 0:
            raise ConfigError(f"norm_epsilon {self.norm_epsilon}; it has to be positive; 1e-6 and 1e-5 are usual")
        if self.causal and self.pooling == "first":
            raise ConfigError(
                "a causal tower pooled at its first token, which sees no other; causal towers pool the end of text; "
                'use pooling="eot" or causal=False'
            )
        if self.causal and not self.attend_padding:
            raise ConfigError(
                "attend_padding=False in a causal tower, whose end of text never sees the padding after it; "
                "padding has to be hidden in bidirectional towers only; leave attend_padding out"
            )
        if not 0 <= self.pad_id < self.vocab_size:
            raise ConfigError(f"pad_id {self.pad_id}; it has to be one of the {self.vocab_size} pieces; change it")

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: JSON, where: str = "text.config") -> "TextConfig":
        """Read what ``to_json`` wrote; fields that older checkpoints lack take their defaults.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
            ConfigError: The values make no text tower.
        """
        fields = Fields(value, where)
        config = cls(
            vocab_size=fields.take("vocab_size", read_int),
            length=fields.take("length", read_int),
            width=fields.take("width", read_int),
            depth=fields.take("depth", read_int),
            num_heads=fields.take("num_heads", read_int),
            mlp_ratio=fields.take("mlp_ratio", read_float),
            causal=fields.take("causal", read_bool, default=False),
            pooling=fields.take("pooling", _read_pooling, default="first"),
            activation=fields.take("activation", _read_activation, default="gelu"),
            norm_epsilon=fields.take("norm_epsilon", read_float, default=1e-6),
            attend_padding=fields.take("attend_padding", read_bool, default=True),
            pad_id=fields.take("pad_id", read_int, default=0),
        )
        fields.done()
        return config
