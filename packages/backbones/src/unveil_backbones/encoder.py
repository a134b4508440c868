"""Encoders by name: the families' presets joined, and building from a spec or a changed configuration."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import overload

from torch import Tensor

from unveil_backbones.base import Encoder, EncoderConfig
from unveil_backbones.errors import ConfigError, UnknownModelError
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.pair_presets import PAIR_PRESETS, PairName, create_pair
from unveil_backbones.specs import EncoderSpec
from unveil_backbones.swin import SwinConfig, SwinEncoder, clamped_windows
from unveil_backbones.swin_presets import SWIN_PRESETS
from unveil_backbones.vit import VitConfig, VitEncoder
from unveil_backbones.vit_presets import VIT_PRESETS

__all__ = ["Encoder", "build", "create", "names", "rebuild"]

# Families stand beside presets so that an encoder of one's own shape has a name its checkpoint can carry.
_FAMILIES: Mapping[str, type[VitConfig | SwinConfig]] = MappingProxyType({"vit": VitConfig, "swinv2": SwinConfig})
_PRESETS: Mapping[str, VitConfig | SwinConfig] = MappingProxyType({**VIT_PRESETS, **SWIN_PRESETS})


def names() -> tuple[str, ...]:
    """Return the names of image encoders that ``create`` knows; pairs are in ``pair_presets.PAIR_PRESETS``.

    ``*_tiny`` are made for CPU tests and demonstrations (64 pixels); ``swinv2_*`` are those of the data-scaling study
    (192 pixels, window 12), ``vit_*`` the usual ones (224 pixels).
    """
    return tuple(_PRESETS)


@overload
def create(  # pyright: ignore[reportOverlappingOverload]  # a literal name is a pair, any other text an encoder
    name: PairName, *, image_size: tuple[int, int] | int | None = None, drop_path: float | None = None
) -> ImageTextPair: ...


@overload
def create(
    name: str, *, image_size: tuple[int, int] | int | None = None, drop_path: float | None = None
) -> Encoder: ...


def create(
    name: str, *, image_size: tuple[int, int] | int | None = None, drop_path: float | None = None
) -> Encoder | ImageTextPair:
    """Make an encoder, or an image-text pair, with fresh weights.

    Args:
        name: One of ``names()``, or of ``pair_presets.PAIR_PRESETS``.
        image_size: Height and width of pre-training (one number for a square); the preset's if ``None``.
        drop_path: Stochastic depth of the last block; the preset's (0) if ``None``.

    Raises:
        UnknownModelError: The name is none of these.
        ImageSizeError: The size does not fit the encoder.
        ConfigError: ``drop_path`` is no probability.
    """
    if name in PAIR_PRESETS:
        return create_pair(name, image_size=image_size, drop_path=drop_path)
    if name not in _PRESETS:
        known = ", ".join((*names(), *PAIR_PRESETS))
        raise UnknownModelError(f"encoder {name!r} is unknown; there are {known}; choose one of them")
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
    family = type(_PRESETS[spec.name]) if spec.name in _PRESETS else _FAMILIES.get(spec.name)
    if family is None:
        raise UnknownModelError(
            f"encoder {spec.name!r} is unknown; this version builds {', '.join((*names(), *_FAMILIES))}; "
            "upgrade unveil-backbones if a newer version made it"
        )
    return _from_config(family.from_json(spec.config), spec.name)


def rebuild(encoder: Encoder, config: EncoderConfig) -> Encoder:
    """Make an encoder with the same weights and another configuration, such as a larger ``drop_path`` for fine-tuning.

    Args:
        encoder: Where name and weights come from.
        config: ``dataclasses.replace(encoder.config, drop_path=0.2)`` or the like; shapes of weights must stay.

    Raises:
        ConfigError: The configuration is of no known family, or has weights of other names or shapes.
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


def _from_config(config: EncoderConfig, name: str) -> Encoder:
    if isinstance(config, VitConfig):
        return VitEncoder(config, name)
    if isinstance(config, SwinConfig):
        return SwinEncoder(config, name)
    raise ConfigError(f"{config} is the configuration of no encoder of this package; take `encoder.config`")


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
