"""Whether a configuration from a file may be built: a few characters of a manifest must not fill the memory.

Building comes before comparing shapes, so what would be built is estimated first, from below, and compared with the
numbers that the file really holds.
"""

import math
from collections.abc import Mapping

import torch

from unveil_backbones._json import JSON
from unveil_backbones.encoder import build
from unveil_backbones.errors import ManifestError, TensorMismatchError
from unveil_backbones.specs import EncoderSpec, TextSpec
from unveil_backbones.timm_config import TIMM_PREFIX

__all__ = ["check_plausible"]

_LARGEST_NUMBER = 2**24
_LARGEST_WINDOW = 64
_SMALL = 2**24
"""Weights of a model that may be built to name the tensors that are missing: 64 mebibytes of float32."""
_LARGEST_TABLE = 2**28
"""Numbers in a table of positions: a gibibyte of float32."""


def check_plausible(spec: EncoderSpec | TextSpec, num_held: int, where: str) -> None:
    """Refuse a specification whose model is larger than the weights beside it, or whose tables are absurdly large.

    Args:
        spec: What would be built.
        num_held: Numbers in the file of its weights.
        where: Name of the manifest in messages.

    Raises:
        ManifestError: A value is beyond every model.
        TensorMismatchError: The model has more weights than the file.
    """
    config = spec.config
    strange = [name for name, value in config.items() if any(not 0 <= n <= _LARGEST_NUMBER for n in _numbers(value))]
    if strange:
        raise ManifestError(
            f"{where}: {spec.name} with {strange[0]} {_shown(config, strange[0])}; sizes and counts are between 0 and "
            f"{_LARGEST_NUMBER}; do not use a checkpoint from this source"
        )
    wide = [name for name in ("window_sizes",) if any(side > _LARGEST_WINDOW for side in _numbers(config.get(name)))]
    if wide or _table(config) > _LARGEST_TABLE:
        field = wide[0] if wide else "image_size"
        raise ManifestError(
            f"{where}: {spec.name} with {field} {_shown(config, field)} would fill the memory; windows are at most "
            f"{_LARGEST_WINDOW}, tables at most {_LARGEST_TABLE} numbers; do not use a checkpoint from this source"
        )
    needed = _timm_weights(spec) if spec.name.startswith(TIMM_PREFIX) else _least_weights(config)
    if needed > max(num_held, _SMALL):
        raise TensorMismatchError(
            f"{where}: {spec.name} has at least {needed} weights, the file beside it {num_held}; tensors are missing; "
            "save the checkpoint from the model its manifest describes"
        )


def _least_weights(config: Mapping[str, JSON]) -> int:
    """Weights of attention and MLPs; widths double from stage to stage. 0 for a configuration without these fields."""
    width, ratio = _first(config.get("width")), _first(config.get("mlp_ratio"))
    depths = _numbers(config.get("depths")) or _numbers(config.get("depth"))
    blocks = sum(depth * 4**stage for stage, depth in enumerate(depths))
    embedding = (_first(config.get("vocab_size")) + _first(config.get("length"))) * width
    return int(blocks * width * width * (2 + 2 * ratio) + embedding)


def _timm_weights(spec: EncoderSpec | TextSpec) -> int:
    """Weights of one of timm's models, whose name alone says what it is; made without memory."""
    with torch.device("meta"):
        return build(EncoderSpec(spec.name, spec.config)).num_parameters


def _table(config: Mapping[str, JSON]) -> float:
    """Numbers in the largest table of positions."""
    patch = max(1.0, _first(config.get("patch_size")))
    slots = max(1.0, _first(config.get("num_frames"))) / max(1.0, _first(config.get("tubelet")))
    cells = [math.prod(_numbers(config.get(name))) for name in ("image_size", "global_grid") if name in config]
    return max((count / patch**2 for count in cells), default=0.0) * slots * max(1.0, _first(config.get("width")))


def _first(value: JSON) -> float:
    return next(iter(_numbers(value)), 0.0)


def _numbers(value: JSON) -> list[float]:
    """The numbers in a value, however deep."""
    if isinstance(value, bool):
        return []
    if isinstance(value, int | float):
        # Beyond the range of floats is beyond every limit here.
        return [float(min(max(value, -(2.0**64)), 2.0**64))]
    return [number for item in value for number in _numbers(item)] if isinstance(value, list) else []


def _shown(config: Mapping[str, JSON], name: str) -> str:
    text = repr(config.get(name))
    return text if len(text) <= 60 else text[:57] + "..."
