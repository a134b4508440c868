"""Encoders by name: the presets, and building from a spec or a changed configuration."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from torch import Tensor

from unveil_backbones.base import Encoder
from unveil_backbones.errors import ConfigError, UnknownModelError
from unveil_backbones.specs import EncoderSpec
from unveil_backbones.swin import SwinConfig, SwinEncoder, clamped_windows
from unveil_backbones.vit import VitConfig, VitEncoder

__all__ = ["Encoder", "build", "create", "names", "rebuild"]

# Families stand beside presets so that an encoder of one's own shape has a name its checkpoint can carry.
_VIT = "vit"
_SWIN = "swinv2"


def _vit(image: int, patch: int, width: int, depth: int, heads: int) -> VitConfig:
    return VitConfig(image_size=(image, image), patch_size=patch, width=width, depth=depth, num_heads=heads)


def _swin(image: int, width: int, depths: tuple[int, ...], window: int) -> SwinConfig:
    windows = (window,) * 4
    return SwinConfig(
        image_size=(image, image),
        width=width,
        depths=depths,
        num_heads=tuple(width * 2**stage // 32 for stage in range(4)),
        window_sizes=windows,
        pretrained_window_sizes=clamped_windows((image, image), 4, windows),
    )


_PRESETS: Mapping[str, VitConfig | SwinConfig] = MappingProxyType(
    {
        "vit_tiny": _vit(64, 8, 128, 4, 4),
        "vit_s16": _vit(224, 16, 384, 12, 6),
        "vit_b16": _vit(224, 16, 768, 12, 12),
        "vit_l16": _vit(224, 16, 1024, 24, 16),
        "swinv2_tiny": _swin(64, 32, (2, 2, 2, 2), 4),
        "swinv2_s": _swin(192, 96, (2, 2, 18, 2), 12),
        "swinv2_b": _swin(192, 128, (2, 2, 18, 2), 12),
        "swinv2_l": _swin(192, 192, (2, 2, 18, 2), 12),
    }
)


def names() -> tuple[str, ...]:
    """Return the names that ``create`` knows.

    ``*_tiny`` are made for CPU tests and demonstrations (64 pixels); ``swinv2_*`` are those of the data-scaling study
    (192 pixels, window 12), ``vit_*`` the usual ones (224 pixels).
    """
    return tuple(_PRESETS)


def create(name: str, *, image_size: tuple[int, int] | int | None = None, drop_path: float | None = None) -> Encoder:
    """Make an encoder with fresh weights.

    Args:
        name: One of ``names()``.
        image_size: Height and width of pre-training (one number for a square); the preset's if ``None``.
        drop_path: Stochastic depth of the last block; the preset's (0) if ``None``.

    Raises:
        UnknownModelError: The name is none of ``names()``.
        ImageSizeError: The size does not fit the encoder.
        ConfigError: ``drop_path`` is no probability.
    """
    if name not in _PRESETS:
        raise UnknownModelError(f"encoder {name!r} is unknown; there are {', '.join(names())}; choose one of them")
    config = _PRESETS[name]
    if drop_path is not None:
        config = replace(config, drop_path=drop_path)
    if image_size is not None:
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        config = replace(config, image_size=size)
        if isinstance(config, SwinConfig):
            windows = clamped_windows(size, config.patch_size, config.window_sizes)
            config = replace(config, pretrained_window_sizes=windows)
    return _from_config(config, name)


def build(spec: EncoderSpec) -> Encoder:
    """Make the encoder that a spec describes, with fresh weights.

    Raises:
        UnknownModelError: The spec's name is neither one of ``names()`` nor a family (``vit``, ``swinv2``).
        ManifestError: A field of the configuration is missing, unknown or of the wrong type.
        ConfigError: The values make no encoder.
    """
    preset = _PRESETS.get(spec.name)
    if spec.name == _VIT or isinstance(preset, VitConfig):
        return VitEncoder(VitConfig.from_json(spec.config), spec.name)
    if spec.name == _SWIN or isinstance(preset, SwinConfig):
        return SwinEncoder(SwinConfig.from_json(spec.config), spec.name)
    raise UnknownModelError(
        f"encoder {spec.name!r} is unknown; this version builds {', '.join((*names(), _VIT, _SWIN))}; "
        "upgrade unveil-backbones if a newer version made it"
    )


def rebuild(encoder: Encoder, config: VitConfig | SwinConfig) -> Encoder:
    """Make an encoder with the same weights and another configuration, such as a larger ``drop_path`` for fine-tuning.

    Args:
        encoder: Where name and weights come from.
        config: ``dataclasses.replace(encoder.config, drop_path=0.2)`` or the like; shapes of weights must stay.

    Raises:
        ConfigError: The configuration has weights of other names or shapes.
    """
    changed = _from_config(config, encoder.spec.name)
    state = encoder.state_dict()
    if _shapes(changed.state_dict()) != _shapes(state):
        raise ConfigError(
            f"{config} has other weights than {encoder.spec}; only image size, windows and drop path may change; "
            "train an encoder of the new shape instead"
        )
    changed.load_state_dict(state)
    return changed


def _from_config(config: VitConfig | SwinConfig, name: str) -> Encoder:
    return VitEncoder(config, name) if isinstance(config, VitConfig) else SwinEncoder(config, name)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
