"""A bidirectional text tower as FLIP uses it (Li et al., arXiv 2212.00794; details from the authors' released code).

Learned token and position embeddings, no added class token, no causal mask. Two habits of the released code are kept:
padding is attended like any other token (its validity mask is computed there and not used), and the sentence's vector
is the last layer's *token 0*, the first word piece.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unveil_backbones._json import JSON, Fields, read_float, read_int
from unveil_backbones._timm import Block
from unveil_backbones.base import undecayed
from unveil_backbones.errors import ConfigError, TokenCountError, UnknownModelError
from unveil_backbones.specs import TextSpec

__all__ = ["TextConfig", "TextTower", "build_text", "create_text", "text_names"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextConfig:
    """Shape of a text tower."""

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

    def __post_init__(self) -> None:
        if min(self.vocab_size, self.length, self.depth) < 1 or self.width % self.num_heads:
            raise ConfigError(
                f"{self}; vocabulary, length and depth are at least 1 and the width is a multiple of the heads; "
                "change the one that is not"
            )

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: JSON, where: str = "text.config") -> "TextConfig":
        """Read what ``to_json`` wrote.

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
        )
        fields.done()
        return config


class TextTower(nn.Module):
    """A Transformer over word pieces that returns one vector per caption.

    Args:
        config: Its shape.
        name: Name of the architecture in the spec.

    Attributes:
        spec: Name and full configuration: what ``build_text`` needs to make it again.
        width: Width of the returned vector.
    """

    def __init__(self, config: TextConfig, name: str = "text") -> None:
        super().__init__()
        self.config = config
        self.spec = TextSpec(name, config.to_json())
        self.width = config.width
        self.token_embed = nn.Embedding(config.vocab_size, config.width)
        self.pos_embed = nn.Parameter(torch.empty(1, config.length, config.width))
        self.blocks = nn.Sequential(
            *(Block(config.width, config.num_heads, config.mlp_ratio, qkv_bias=True) for _ in range(config.depth))
        )
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.token_embed.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.01)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Return each caption's vector, ``d = width``.

        Args:
            ids: Word pieces, at most ``length`` of them per caption, padded.

        Raises:
            TokenCountError: Captions are empty or longer than the position embedding.
        """
        if not 1 <= ids.shape[1] <= self.config.length:
            raise TokenCountError(
                f"{self.spec.name} got captions of {ids.shape[1]} word pieces; it takes 1 to {self.config.length}; "
                "use the tokenizer that was saved with it"
            )
        tokens = self.token_embed(ids) + self.pos_embed[:, : ids.shape[1]]
        return self.norm(self.blocks(tokens))[:, 0]

    def no_weight_decay(self) -> frozenset[str]:
        """Return biases, norms and the position embedding (FLIP, table 10)."""
        return undecayed(self, ("pos_embed",))


_PRESETS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    # width, depth, heads; text_b is FLIP's table 9, text_s narrows it to ViT-S's width.
    {"text_tiny": (128, 2, 4), "text_s": (384, 12, 6), "text_b": (512, 12, 8)}
)


def text_names() -> tuple[str, ...]:
    """Return the names that ``create_text`` knows."""
    return tuple(_PRESETS)


def create_text(name: str, vocab_size: int, length: int) -> TextTower:
    """Make a text tower with fresh weights.

    Args:
        name: One of ``text_names()``.
        vocab_size: Number of word pieces of its tokenizer.
        length: Word pieces per caption (FLIP: 32).

    Raises:
        UnknownModelError: The name is none of ``text_names()``.
        ConfigError: A size is not positive.
    """
    if name not in _PRESETS:
        raise UnknownModelError(
            f"text tower {name!r} is unknown; there are {', '.join(text_names())}; choose one of them"
        )
    width, depth, heads = _PRESETS[name]
    config = TextConfig(vocab_size=vocab_size, length=length, width=width, depth=depth, num_heads=heads)
    return TextTower(config, name)


def build_text(spec: TextSpec) -> TextTower:
    """Make the text tower that a spec describes, with fresh weights.

    Raises:
        UnknownModelError: The spec's name is neither one of ``text_names()`` nor ``text``.
        ManifestError: A field of the configuration is missing, unknown or of the wrong type.
        ConfigError: The values make no text tower.
    """
    if spec.name != "text" and spec.name not in _PRESETS:
        raise UnknownModelError(
            f"text tower {spec.name!r} is unknown; this version builds {', '.join((*text_names(), 'text'))}; "
            "upgrade unveil-backbones if a newer version made it"
        )
    return TextTower(TextConfig.from_json(spec.config), spec.name)
