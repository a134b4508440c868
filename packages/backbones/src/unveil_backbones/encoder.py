"""Encoders by name: the families' presets joined, timm's models, and building from a spec or a configuration."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Unpack, overload

from torch import Tensor

from unveil_backbones.base import Encoder, EncoderConfig
from unveil_backbones.errors import ConfigError, ManifestError, UnknownModelError
from unveil_backbones.hiera import HieraConfig, HieraEncoder
from unveil_backbones.hiera_presets import HIERA_PRESETS
from unveil_backbones.overrides import AnyConfig, Overrides, apply_overrides, check_override_names
from unveil_backbones.pair import ImageTextPair
from unveil_backbones.pair_presets import PAIR_PRESETS, PairName, create_pair
from unveil_backbones.specs import EncoderSpec
from unveil_backbones.swin import SwinConfig, SwinEncoder
from unveil_backbones.swin_presets import SWIN_PRESETS
from unveil_backbones.timm_config import TIMM_PREFIX, TimmConfig
from unveil_backbones.timm_encoder import TimmEncoder, timm_preset
from unveil_backbones.vit import VitConfig, VitEncoder
from unveil_backbones.vit_presets import VIT_PRESETS
from unveil_backbones.vit_video import VideoVitConfig, VideoVitEncoder
from unveil_backbones.vit_video_presets import VIT_VIDEO_PRESETS

__all__ = ["Encoder", "build", "create", "names", "rebuild"]

# Families stand beside presets so that an encoder of one's own shape has a name its checkpoint can carry.
_Config = VitConfig | SwinConfig | HieraConfig | VideoVitConfig
_FAMILIES: Mapping[str, type[_Config]] = MappingProxyType(
    {"vit": VitConfig, "swinv2": SwinConfig, "hiera": HieraConfig, "vit_video": VideoVitConfig}
)
_PRESETS: Mapping[str, _Config] = MappingProxyType(
    {**VIT_PRESETS, **SWIN_PRESETS, **HIERA_PRESETS, **VIT_VIDEO_PRESETS}
)
_PAIR_SETTINGS = ("image_size", "drop_path", "vocab_size", "activation")


def names() -> tuple[str, ...]:
    """Return the names of image encoders that ``create`` knows; pairs are in ``pair_presets.PAIR_PRESETS``.

    ``*_tiny`` are made for CPU tests and demonstrations (64 pixels); ``swinv2_*`` are those of the data-scaling study
    (192 pixels, window 12), ``vit_*`` and ``hiera_*`` the usual ones (224 pixels), ``vit_video_*`` encode clips of 16
    frames. Beside them, ``timm:<model>`` is any
    plain Vision Transformer of timm.
    """
    return tuple(_PRESETS)


@overload
def create(  # pyright: ignore[reportOverlappingOverload]  # a literal name is a pair, any other text an encoder
    name: PairName, **overrides: Unpack[Overrides]
) -> ImageTextPair: ...


@overload
def create(name: str, **overrides: Unpack[Overrides]) -> Encoder: ...


def create(name: str, **overrides: Unpack[Overrides]) -> Encoder | ImageTextPair:
    """Make an encoder, or an image-text pair, with fresh weights. Nothing is downloaded.

    Args:
        name: One of ``names()``, ``timm:<model>``, or one of ``pair_presets.PAIR_PRESETS``.
        **overrides: Fields of the preset's configuration, such as ``image_size`` (one number for a square) and
            ``drop_path``; a pair has ``image_size``, ``drop_path``, ``vocab_size`` and ``activation``.

    Raises:
        UnknownModelError: The name is none of these, or timm's model cannot run on a part of its tokens.
        ImageSizeError: The size does not fit the encoder.
        ConfigError: A setting is unknown or of the wrong type, or the values make no encoder.
    """
    if name in PAIR_PRESETS:
        check_override_names(overrides, _PAIR_SETTINGS, name)
        return create_pair(
            name,
            image_size=overrides.get("image_size"),
            drop_path=overrides.get("drop_path"),
            vocab_size=overrides.get("vocab_size"),
            activation=overrides.get("activation"),
        )
    return _from_config(apply_overrides(_preset(name), overrides, name), name)


def build(spec: EncoderSpec) -> Encoder:
    """Make the encoder that a spec describes, with fresh weights.

    Raises:
        UnknownModelError: The spec's name is none of ``names()``, no family (``vit``, ``swinv2``, ``hiera``,
            ``vit_video``) and none of timm's models.
        ManifestError: A field of the configuration is missing, unknown or of the wrong type.
        ConfigError: The values make no encoder.
    """
    if spec.name.startswith(TIMM_PREFIX):
        config = TimmConfig.from_json(spec.config)
        if TIMM_PREFIX + config.model != spec.name:
            raise ManifestError(
                f"encoder {spec.name!r} has a configuration of timm's {config.model!r}; both are the same model; "
                "write it with `save`"
            )
        return TimmEncoder(config)
    family = type(_PRESETS[spec.name]) if spec.name in _PRESETS else _FAMILIES.get(spec.name)
    if family is None:
        raise UnknownModelError(
            f"encoder {spec.name!r} is unknown; this version builds {', '.join((*names(), *_FAMILIES))}, "
            f"{TIMM_PREFIX}<model>; upgrade unveil-backbones if a newer version made it"
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


def _preset(name: str) -> AnyConfig:
    if name.startswith(TIMM_PREFIX):
        return timm_preset(name.removeprefix(TIMM_PREFIX))
    if name not in _PRESETS:
        known = ", ".join((*names(), *PAIR_PRESETS))
        raise UnknownModelError(
            f"encoder {name!r} is unknown; there are {known}, and {TIMM_PREFIX}<model> for timm's; choose one of them"
        )
    return _PRESETS[name]


def _from_config(config: EncoderConfig, name: str) -> Encoder:
    if isinstance(config, VitConfig):
        return VitEncoder(config, name)
    if isinstance(config, SwinConfig):
        return SwinEncoder(config, name)
    if isinstance(config, HieraConfig):
        return HieraEncoder(config, name)
    if isinstance(config, VideoVitConfig):
        return VideoVitEncoder(config, name)
    if isinstance(config, TimmConfig):
        return TimmEncoder(config)
    raise ConfigError(f"{config} is the configuration of no encoder of this package; take `encoder.config`")


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
