"""The named pairs of an image encoder and a text tower: FLIP's and CLIP's.

FLIP: Li et al., arXiv 2212.00794, table 9; image towers are MAE's (fixed positions, no norm before the blocks), pooled
by the mean of all tokens, class token included. CLIP: Radford et al., arXiv 2103.00020, table 20 for B and L; H/14 as
trained by OpenCLIP. The ``clip_*`` have GELU, as OpenCLIP's models; OpenAI's weights want ``activation="quick_gelu"``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from unveil_backbones.errors import UnknownModelError
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.text import TextTower
from unveil_backbones.text_config import TextActivation, TextConfig
from unveil_backbones.vit import VitConfig, VitEncoder

__all__ = ["PAIR_PRESETS", "PairConfig", "PairName", "create_pair"]

PairName = Literal["flip_b16", "flip_l16", "flip_h14", "clip_b32", "clip_b16", "clip_l14", "clip_h14"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """Shapes of both towers of a pair."""

    encoder: VitConfig
    """The image encoder."""
    text: TextConfig
    """The text tower."""
    embed_dim: int
    """Width of the common space."""


def _flip(image: VitConfig, text: TextConfig, embed_dim: int) -> PairConfig:
    return PairConfig(encoder=replace(image, pooling="mean_all"), text=text, embed_dim=embed_dim)


def _clip(image: VitConfig, text: TextConfig, embed_dim: int) -> PairConfig:
    image = replace(
        image,
        position="learned",
        class_position=True,
        pooling="cls",
        pre_norm=True,
        patch_bias=False,
        norm_epsilon=1e-5,
    )
    text = replace(text, vocab_size=49_408, length=77, causal=True, pooling="eot", norm_epsilon=1e-5)
    return PairConfig(encoder=image, text=text, embed_dim=embed_dim)


def _image(patch: int, width: int, depth: int, heads: int) -> VitConfig:
    return VitConfig(image_size=(224, 224), patch_size=patch, width=width, depth=depth, num_heads=heads)


def _text(width: int, depth: int, heads: int) -> TextConfig:
    return TextConfig(vocab_size=30_522, length=32, width=width, depth=depth, num_heads=heads)


_TEXT_B, _TEXT_L, _TEXT_H = _text(512, 12, 8), _text(768, 12, 12), _text(1024, 24, 16)

PAIR_PRESETS: Mapping[str, PairConfig] = MappingProxyType(
    {
        "flip_b16": _flip(_image(16, 768, 12, 12), _TEXT_B, 512),
        "flip_l16": _flip(_image(16, 1024, 24, 16), _TEXT_L, 768),
        "flip_h14": _flip(_image(14, 1280, 32, 16), _TEXT_H, 1024),
        "clip_b32": _clip(_image(32, 768, 12, 12), _TEXT_B, 512),
        "clip_b16": _clip(_image(16, 768, 12, 12), _TEXT_B, 512),
        "clip_l14": _clip(_image(14, 1024, 24, 16), _TEXT_L, 768),
        "clip_h14": _clip(_image(14, 1280, 32, 16), _TEXT_H, 1024),
    }
)
"""Configuration by name; 224 pixels, BERT's vocabulary and 32 pieces (FLIP) or CLIP's vocabulary and 77 (CLIP)."""


def create_pair(
    name: str,
    *,
    image_size: tuple[int, int] | int | None = None,
    drop_path: float | None = None,
    vocab_size: int | None = None,
    activation: TextActivation | None = None,
) -> ImageTextPair:
    """Make an image-text pair with fresh weights.

    Args:
        name: One of ``PAIR_PRESETS``.
        image_size: Height and width of pre-training (one number for a square); 224 if ``None``.
        drop_path: Stochastic depth of the image encoder's last block; 0 if ``None``.
        vocab_size: ``tokenizer.vocab_size``, if the tokenizer is not the preset's.
        activation: Of both towers; GELU if ``None``.

    Raises:
        UnknownModelError: The name is none of ``PAIR_PRESETS``.
        ImageSizeError: The size does not fit the encoder.
        ConfigError: A value is impossible.
    """
    if name not in PAIR_PRESETS:
        raise UnknownModelError(f"pair {name!r} is unknown; there are {', '.join(PAIR_PRESETS)}; choose one of them")
    config = PAIR_PRESETS[name]
    image, text = config.encoder, config.text
    if image_size is not None:
        image = replace(image, image_size=(image_size, image_size) if isinstance(image_size, int) else image_size)
    if drop_path is not None:
        image = replace(image, drop_path=drop_path)
    if vocab_size is not None:
        text = replace(text, vocab_size=vocab_size)
    if activation is not None:
        image, text = replace(image, activation=activation), replace(text, activation=activation)
    # The families' names: the specs of a checkpoint hold every field, and these shapes have presets of other pooling.
    return ImageTextPair(VitEncoder(image, "vit"), TextTower(text, "text"), config.embed_dim)
