"""What shapes do not tell about a foreign model, and what a layout found in a file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from torch import Tensor

from unveil_backbones._json import JSON
from unveil_backbones.base import POOLINGS, Encoder, Pooling
from unveil_backbones.conversion.ledger import Ledger, Link
from unveil_backbones.encoder import build
from unveil_backbones.errors import ConvertError, TensorMismatchError
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.position import sin_cos_position
from unveil_backbones.specs import EncoderSpec, Preprocessing
from unveil_backbones.swin_config import SwinConfig
from unveil_backbones.swin_presets import SWIN_PRESETS
from unveil_backbones.vit_config import ACTIVATIONS, Activation, VitConfig
from unveil_backbones.vit_presets import VIT_PRESETS

__all__ = ["Details", "Found", "Written", "check_swin_room", "infer_vit", "make_encoder", "vit_positions"]

_SAME_POSITION = 1e-6
"""Largest difference to the fixed positions: both are roundings of the same real numbers to float32."""

_HEADS = {1280: 80, 1408: 88, 1664: 104}
"""Head widths of the huge and giant Vision Transformers; all smaller and larger published ones have 64."""


_LARGEST_WINDOW = 64
_LARGEST_SIDE = 16_384
"""Tables of positions grow with these; a few bytes in a file must not fill the memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """What the caller knows about a foreign model; ``None`` is inferred from shapes or the format's convention.

    Raises:
        ConvertError: A value is none that a model can have.
    """

    arch: str | None = None
    """Name of a preset of this package."""
    image_size: tuple[int, int] | None = None
    """Height and width of its positions, or of its windows' pre-training."""
    num_heads: int | None = None
    """Attention heads of each block (Vision Transformers)."""
    decoder_heads: int | None = None
    """Attention heads of each block of MAE's decoder; 32 channels each."""
    window: int | None = None
    """Window side of all stages (Swin), clamped to the stages' grids."""
    pretrained_windows: tuple[tuple[int, int], ...] | None = None
    """Windows of pre-training, by stage (Swin); a 0 stands for the stage's own window."""
    norm_epsilon: float | None = None
    """Added to variances."""
    activation: Activation | None = None
    """``gelu`` or ``quick_gelu``."""
    pooling: Pooling | None = None
    """``mean``, ``mean_all`` or ``cls``."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from pixels in [0, 1]."""
    std: tuple[float, float, float] | None = None
    """Pixels are divided by it."""
    interpolation: str | None = None
    """Resampling filter of the resize."""
    crop_fraction: float | None = None
    """Side of the centre crop over the side of the resized image."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("activation", self.activation, ACTIVATIONS),
            ("pooling", self.pooling, POOLINGS),
        ):
            if value is not None and value not in known:
                raise ConvertError(f"{name} {value!r}; there are {', '.join(known)}; give one of them or leave it out")
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name, number in (("num_heads", self.num_heads), ("decoder_heads", self.decoder_heads)):
            if number is not None and number < 1:
                raise ConvertError(f"{name} {number}; there is at least one; give the real number")
        if self.window is not None and not 0 < self.window <= _LARGEST_WINDOW:
            raise ConvertError(f"window {self.window}; it is between 1 and {_LARGEST_WINDOW} tokens; give the real one")
        if self.image_size is not None and not all(0 < side <= _LARGEST_SIDE for side in self.image_size):
            raise ConvertError(
                f"image size {self.image_size}; sides are 1 to {_LARGEST_SIDE} pixels; give the real one"
            )

        if not all(math.isfinite(value) for value in self.mean or ()):
            raise ConvertError(f"mean {self.mean}; three finite numbers; give those of pixels in [0, 1]")
        for name, values in (
            ("std", self.std),
            ("norm_epsilon", self.norm_epsilon),
            ("crop_fraction", self.crop_fraction),
        ):
            numbers = values if isinstance(values, tuple) else () if values is None else (values,)
            if not all(math.isfinite(value) and value > 0 for value in numbers):
                raise ConvertError(f"{name} {values}; it is positive and finite; give the real one or leave it out")

    def preprocessing(self, standard: Preprocessing) -> Preprocessing:
        """Return the format's conventional preprocessing with the given values in their place."""
        return replace(
            standard,
            mean=self.mean or standard.mean,
            std=self.std or standard.std,
            interpolation=self.interpolation or standard.interpolation,
            crop_fraction=self.crop_fraction or standard.crop_fraction,
        )

    def completed(self, known: "Details") -> "Details":
        """Return these details with those of ``known`` where nothing is said."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(known, **said)


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
    heads: Sequence[Link] = ()
    """Where the tensors of its objective are, under the names that checkpoints have for them."""
    settings: dict[str, JSON] | None = None
    """Settings of the objective that these belong to."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A model in a foreign layout."""

    tensors: dict[str, Tensor]
    """By foreign name."""
    configs: Mapping[str, JSON]
    """Content of each configuration file, by its name."""
    weights_name: str = "model.safetensors"
    """Name of the file of tensors."""


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
    weight, hidden = ledger.look(patch, 4), ledger.look(fc1, 2)
    if weight.shape[1] != 3 or weight.shape[2] != weight.shape[3] or not depth:
        raise ConvertError(
            f"{ledger.where}: {patch} {tuple(weight.shape)}, {fc1} {tuple(hidden.shape)}, {depth} blocks; a Vision "
            "Transformer has square patches of 3 channels, matrices and blocks; give the format the file really has"
        )
    width, side = weight.shape[0], weight.shape[2]
    ledger.check_room(depth * width * (4 * width + 2 * hidden.shape[0]))
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


def check_swin_room(ledger: Ledger, width: int, hidden: int, depths: Sequence[int]) -> None:
    """Refuse a Swin Transformer with more weights than the file has numbers.

    Args:
        ledger: The file.
        width: Of the first stage.
        hidden: Width of the first stage's MLPs.
        depths: Blocks of each stage.

    Raises:
        CoverageError: It has.
    """
    ledger.check_room(sum(depth * 4**stage * width * (4 * width + 2 * hidden) for stage, depth in enumerate(depths)))


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
    table = ledger.look(name, 3)
    if table.shape[2] != config.width:
        raise TensorMismatchError(
            f"{ledger.where}: {name} {tuple(table.shape)} for tokens of width {config.width}; "
            "give the format the file really has"
        )
    rows, cols = (size // config.patch_size for size in config.image_size)
    extra = table.shape[1] - rows * cols
    if extra not in (0, 1) or (extra == 1 and not config.class_token):
        raise ConvertError(
            f"{ledger.where}: {name} {tuple(table.shape)} for a grid of {rows} x {cols} and at most one class token; "
            "give the image size the table was made for"
        )
    if config.width % 4 == 0 and not table[:, :extra].any():
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
