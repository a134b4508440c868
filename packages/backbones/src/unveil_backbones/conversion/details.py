"""What shapes do not tell about a foreign model, and what a layout found in a file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor
from unveil_backbones._json import JSON
from unveil_backbones.base import Encoder
from unveil_backbones.conversion.ledger import Ledger, Link
from unveil_backbones.encoder import build
from unveil_backbones.errors import ConvertError
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.position import sin_cos_position
from unveil_backbones.specs import EncoderSpec, Preprocessing
from unveil_backbones.swin import SwinConfig
from unveil_backbones.swin_presets import SWIN_PRESETS
from unveil_backbones.vit import VitConfig
from unveil_backbones.vit_presets import VIT_PRESETS

__all__ = ["Details", "Found", "Written", "infer_vit", "make_encoder", "vit_positions"]

_SAME_POSITION = 1e-6
"""Largest difference to the fixed positions: both are roundings of the same real numbers to float32."""

_HEADS = {1280: 80, 1408: 88, 1664: 104}
"""Head widths of the huge and giant Vision Transformers; all smaller and larger published ones have 64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """What the caller knows about a foreign model; ``None`` is inferred from shapes or the format's convention."""

    arch: str | None = None
    """Name of a preset of this package."""
    image_size: tuple[int, int] | None = None
    """Height and width of its positions, or of its windows' pre-training."""
    num_heads: int | None = None
    """Attention heads of each block (Vision Transformers)."""
    window: int | None = None
    """Window side of all stages (Swin), clamped to the stages' grids."""
    norm_epsilon: float | None = None
    """Added to variances."""
    activation: str | None = None
    """``gelu`` or ``quick_gelu``."""
    pooling: str | None = None
    """``mean``, ``mean_all`` or ``cls``."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from pixels in [0, 1]."""
    std: tuple[float, float, float] | None = None
    """Pixels are divided by it."""
    config: dict[str, JSON] | None = None
    """The ``config.json`` that lies beside the file."""

    def preprocessing(self, standard: Preprocessing) -> Preprocessing:
        """Return the format's conventional preprocessing with the given numbers in their place."""
        mean, std = self.mean or standard.mean, self.std or standard.std
        return replace(standard, mean=mean, std=std)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a layout made of a foreign file: a model of the right shape, and where each of its tensors is."""

    model: Encoder | ImageTextPair
    """With fresh weights."""
    links: Sequence[Link]
    """One for each of its tensors."""
    objective: str
    """What it was trained for, or ``unknown``."""
    preprocessing: Preprocessing
    """What its input looks like."""
    assumed: dict[str, JSON] = field(default_factory=dict)
    """What the file does not say."""
    tokenizer_json: str | None = None
    """The tokenizer of a pair."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A model in a foreign layout."""

    tensors: dict[str, Tensor]
    """By foreign name."""
    config: dict[str, JSON]
    """Content of the configuration file."""
    weights_name: str = "model.safetensors"
    """Name of the file of tensors."""
    config_name: str = "config.json"
    """Name of the configuration file."""


def infer_vit(ledger: Ledger, patch: str, fc1: str, depth: int, cells: int | None, details: Details) -> VitConfig:
    """Return a plain configuration with the sizes that shapes tell; the layout adds the rest.

    Args:
        ledger: The file.
        patch: Name of the patch projection's weight, ``[d, 3, p, p]``.
        fc1: Name of the first MLP weight of the first block, ``[f, d]``.
        depth: Number of blocks.
        cells: Entries of the position table without those of class and register tokens; ``None`` without a table.
        details: What the caller knows.

    Raises:
        ConvertError: The shapes are none of a Vision Transformer, or the image size has to be given.
    """
    weight, hidden = ledger.look(patch), ledger.look(fc1)
    if (
        weight.dim() != 4
        or hidden.dim() != 2
        or weight.shape[1] != 3
        or weight.shape[2] != weight.shape[3]
        or not depth
    ):
        raise ConvertError(
            f"{ledger.where}: {patch} {tuple(weight.shape)}, {fc1} {tuple(hidden.shape)}, {depth} blocks; a Vision "
            "Transformer has square patches of 3 channels, matrices and blocks; give the format the file really has"
        )
    width, side = weight.shape[0], weight.shape[2]
    preset = _vit_preset(details.arch)
    heads = details.num_heads or (preset.num_heads if preset else max(1, width // _HEADS.get(width, 64)))
    return VitConfig(
        image_size=details.image_size or _square(ledger, cells, side, preset),
        patch_size=side,
        width=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=hidden.shape[0] / width,
    )


def make_encoder(config: VitConfig | SwinConfig, arch: str | None) -> Encoder:
    """Make the encoder, under the name of the preset that it is, or of its family.

    Raises:
        ConvertError: ``arch`` was given and the file's shapes are others.
    """
    presets = {**VIT_PRESETS, **SWIN_PRESETS}
    for name, preset in presets.items():
        if type(preset) is type(config) and _sizes(preset) == _sizes(config) and arch in (None, name):
            return build(EncoderSpec(name, config.to_json()))
    if arch is not None:
        known = f"its shapes are {_sizes(presets[arch])}" if arch in presets else f"there are {', '.join(presets)}"
        raise ConvertError(
            f"the file is {_sizes(config)}, not {arch!r}: {known}; leave `arch` out or give the right one"
        )
    return build(EncoderSpec("vit" if isinstance(config, VitConfig) else "swinv2", config.to_json()))


def vit_positions(ledger: Ledger, config: VitConfig, name: str) -> VitConfig:
    """Say which positions ``[1, n, d]`` a file has: the fixed ones, which are dropped, or a learned table.

    Args:
        ledger: The file.
        config: With image size, class token and registers as they are.
        name: The table's name.

    Raises:
        ConvertError: The table's length fits neither the grid nor the grid and a class token.
    """
    table = ledger.look(name)
    rows, cols = (size // config.patch_size for size in config.image_size)
    extra = table.shape[1] - rows * cols if table.dim() == 3 else -1
    if extra not in (0, 1) or (extra == 1 and not config.class_token):
        raise ConvertError(
            f"{ledger.where}: {name} {tuple(table.shape)} for a grid of {rows} x {cols} and at most one class token; "
            "give the image size the table was made for"
        )
    if config.width % 4 == 0 and table.shape[2] == config.width and not table[:, :extra].any():
        fixed = sin_cos_position(rows, cols, config.width, base_rows=rows, base_cols=cols)
        if (table[0, extra:].float() - fixed).abs().max() <= _SAME_POSITION:
            ledger.drop([name], "the fixed sine-cosine positions, which are computed")
            return config
    return replace(config, position="learned", class_position=extra == 1)


def _square(ledger: Ledger, cells: int | None, side: int, preset: VitConfig | None) -> tuple[int, int]:
    if cells is None and preset is not None:
        return preset.image_size
    root = math.isqrt(cells or 0)
    if cells is None or root * root != cells or root == 0:
        what = "no position table" if cells is None else f"a table of {cells} positions, which is no square"
        raise ConvertError(f"{ledger.where} has {what}; give the image size (--image-size HEIGHT WIDTH)")
    return root * side, root * side


def _vit_preset(arch: str | None) -> VitConfig | None:
    if arch is not None and arch not in VIT_PRESETS:
        raise ConvertError(f"arch {arch!r}; a Vision Transformer is one of {', '.join(VIT_PRESETS)}; choose one")
    return None if arch is None else VIT_PRESETS[arch]


def _sizes(config: VitConfig | SwinConfig) -> tuple[object, ...]:
    """What makes two configurations the same architecture: not the image, not the way positions are made."""
    if isinstance(config, VitConfig):
        return config.patch_size, config.width, config.depth, config.num_heads, round(config.mlp_ratio, 9)
    return config.patch_size, config.width, config.depths, config.num_heads, config.mlp_ratio
