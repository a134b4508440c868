"""What ``create`` may be told to change: the fields of the configurations, named and typed."""

import types
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any, Literal, TypedDict, TypeVar, Union, get_args, get_origin, get_type_hints

from unveil_backbones.base import Pooling
from unveil_backbones.errors import ConfigError
from unveil_backbones.hiera_config import HieraConfig, HieraPosition
from unveil_backbones.swin_config import SwinConfig, clamped_windows
from unveil_backbones.timm_config import TimmConfig
from unveil_backbones.vit_config import Activation, Position, VitConfig
from unveil_backbones.vit_video_config import VideoVitConfig

__all__ = ["AnyConfig", "Overrides", "apply_overrides", "check_override_names"]

AnyConfig = VitConfig | SwinConfig | HieraConfig | VideoVitConfig | TimmConfig
Config = TypeVar("Config", bound=AnyConfig)


class Overrides(TypedDict, total=False):
    """Every setting of every family; each family has some of them (see ``VitConfig`` and the others)."""

    image_size: tuple[int, int] | int | None
    """Height and width of pre-training, one number for a square; the preset's if ``None``."""
    drop_path: float | None
    """Stochastic depth of the last block; the preset's if ``None``."""
    num_frames: int
    tubelet: int
    patch_size: int
    width: int
    depth: int
    depths: tuple[int, ...]
    num_heads: int | tuple[int, ...]
    mlp_ratio: float
    position: Position | HieraPosition
    class_position: bool
    class_token: bool
    num_registers: int
    pooling: Pooling
    pre_norm: bool
    patch_bias: bool
    qkv_bias: bool
    layer_scale: float | None
    activation: Activation
    norm_epsilon: float
    window_sizes: tuple[int, ...]
    pretrained_window_sizes: tuple[tuple[int, int], ...]
    global_grid: tuple[int, int]
    expand_projection: bool
    vocab_size: int
    """Of a pair: ``tokenizer.vocab_size``, if the tokenizer is not the preset's."""


_FIXED = ("model",)  # what a name stands for cannot be changed beside it
_PRESET_IF_NONE = ("image_size", "drop_path")


def apply_overrides(config: Config, overrides: Mapping[str, Any], name: str) -> Config:
    """Return a configuration with some fields changed.

    Windows of pre-training follow a changed image size or window, because the encoder will be trained with it.

    Args:
        config: Of a preset.
        overrides: New values by the names of fields.
        name: Of the encoder, for messages.

    Raises:
        ConfigError: A field is unknown or of the wrong type, or the values make no encoder.
        ImageSizeError: The image size does not fit the encoder.
    """
    allowed = tuple(field.name for field in fields(config) if field.name not in _FIXED)
    check_override_names(overrides, allowed, name)
    values = {key: value for key, value in overrides.items() if value is not None or key not in _PRESET_IF_NONE}
    size = values.get("image_size")
    if isinstance(size, int):
        values["image_size"] = (size, size)
    hints = get_type_hints(type(config))
    for key, value in values.items():
        if not _fits(value, hints[key]):
            raise ConfigError(f"{name}: {key} is {value!r}; it has to be {_shown(hints[key])}; change its type")
        if isinstance(value, int) and float in (hints[key], *get_args(hints[key])):
            values[key] = float(value)  # as a specification read from JSON has it
    if isinstance(config, SwinConfig) and "pretrained_window_sizes" not in values:
        changed = replace(config, **values)
        windows = clamped_windows(changed.image_size, changed.patch_size, changed.window_sizes)
        values["pretrained_window_sizes"] = windows
    return replace(config, **values)


def check_override_names(overrides: Collection[str], allowed: Collection[str], name: str) -> None:
    """Refuse settings that a model does not have.

    Raises:
        ConfigError: There are some; names them and those that exist.
    """
    unknown = [key for key in overrides if key not in allowed]
    if unknown:
        raise ConfigError(f"{name} has no settings {unknown}; it has {', '.join(allowed)}; leave the others out")


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type: one of those that configurations use."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _shown(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
