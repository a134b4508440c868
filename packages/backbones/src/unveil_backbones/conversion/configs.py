"""What configuration files beside the weights say that shapes do not: timm's, open_clip's and transformers'.

A value that is absent or of another type than expected is left unsaid; conventions and shapes take its place, and what
they cannot tell has to be given.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from unveil_backbones._json import JSON
from unveil_backbones.base import Pooling
from unveil_backbones.conversion.details import Details
from unveil_backbones.specs import Preprocessing
from unveil_backbones.vit_config import ACTIVATIONS, Activation

__all__ = ["Configs", "open_clip_details", "preprocessor_json", "timm_details", "transformers_preprocessing"]

Configs = Mapping[str, Mapping[str, JSON]]
"""Content of the configuration files beside the weights, by file name."""

_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of its filters, which transformers writes."""


def _section(config: Mapping[str, JSON], name: str) -> Mapping[str, JSON]:
    """Return an object inside a configuration; empty if there is none."""
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _numbers(value: JSON, count: int) -> tuple[float, ...] | None:
    """Return a list of ``count`` numbers, or ``None`` if it is something else."""
    if not isinstance(value, list) or len(value) != count:
        return None
    plain = [item for item in value if isinstance(item, int | float) and not isinstance(item, bool)]
    known = len(plain) == count and all(-1e9 < item < 1e9 for item in plain)
    return tuple(float(item) for item in plain) if known else None


def timm_details(configs: Configs) -> Details:
    """Read timm's ``config.json``: the architecture's name, its arguments and the preprocessing of its weights."""
    config = configs.get("config.json", {})
    architecture, arguments = _text(config.get("architecture")) or "", _section(config, "model_args")
    pretrained = _section(config, "pretrained_cfg")
    named = re.search(r"_window(\d+)(?:to(\d+))?_(\d+)(?:to(\d+))?", architecture)
    sizes = [int(number) for number in named.groups() if number] if named else []
    image = _numbers(pretrained.get("input_size"), 3)
    return replace(
        _preprocessing(pretrained),
        image_size=_size(arguments.get("img_size"))
        or (None if image is None else (int(image[1]), int(image[2])))
        or ((sizes[-1], sizes[-1]) if sizes else None),
        num_heads=_whole(arguments.get("num_heads")),
        window=_whole(arguments.get("window_size")) or (sizes[len(sizes) // 2 - 1] if sizes else None),
        pretrained_windows=_windows(arguments.get("pretrained_window_sizes"))
        or (((sizes[0], sizes[0]),) * 3 + ((sizes[2] // 32,) * 2,) if len(sizes) == 4 else None),
        norm_epsilon=None if not architecture else (1e-5 if "_clip_" in architecture else 1e-6),
        activation=_activation(arguments.get("act_layer")) or ("quick_gelu" if "quickgelu" in architecture else None),
        pooling=_timm_pooling(
            arguments.get("global_pool", config.get("global_pool")), arguments.get("pool_include_prefix") is True
        ),
    )


def open_clip_details(configs: Configs) -> tuple[Details, int | None]:
    """Read ``open_clip_config.json``: what the image tower and the preprocessing are, and the text tower's heads."""
    config = configs.get("open_clip_config.json", {})
    model = _section(config, "model_cfg")
    vision, text = _section(model, "vision_cfg"), _section(model, "text_cfg")
    width, head = _whole(vision.get("width")), _whole(vision.get("head_width")) or 64
    quick = model.get("quick_gelu")
    details = replace(
        _preprocessing(_section(config, "preprocess_cfg")),
        image_size=_size(vision.get("image_size")),
        num_heads=width // head if width and head else None,
        activation=("quick_gelu" if quick else "gelu") if isinstance(quick, bool) else None,
    )
    return details, _whole(text.get("heads"))


def transformers_preprocessing(configs: Configs) -> Details:
    """Read ``preprocessor_config.json``: normalisation and filter."""
    config = configs.get("preprocessor_config.json", {})
    resample = config.get("resample")
    return Details(
        mean=_colour(config.get("image_mean")),
        std=_colour(config.get("image_std")),
        interpolation=_RESAMPLING.get(resample) if isinstance(resample, int) else None,
    )


def preprocessor_json(kind: str, preprocessing: Preprocessing) -> dict[str, JSON]:
    """Return the content of ``preprocessor_config.json`` for an image processor of transformers."""
    height, width = preprocessing.image_size
    resample = {name: number for number, name in _RESAMPLING.items()}.get(preprocessing.interpolation, 3)
    return {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": resample,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
    }


def _preprocessing(config: Mapping[str, JSON]) -> Details:
    crop = config.get("crop_pct")
    return Details(
        mean=_colour(config.get("mean")),
        std=_colour(config.get("std")),
        interpolation=_text(config.get("interpolation")),
        crop_fraction=float(crop) if isinstance(crop, int | float) and not isinstance(crop, bool) else None,
    )


def _timm_pooling(name: JSON, prefix: bool) -> Pooling | None:
    if name == "token":
        return "cls"
    average: Pooling = "mean_all" if prefix else "mean"
    return average if name == "avg" else None


def _activation(value: JSON) -> Activation | None:
    return next((known for known in ACTIVATIONS if known == value), None)


def _colour(value: JSON) -> tuple[float, float, float] | None:
    return cast(tuple[float, float, float] | None, _numbers(value, 3))


def _size(value: JSON) -> tuple[int, int] | None:
    if side := _whole(value):
        return side, side
    pair = _numbers(value, 2)
    return None if pair is None else (int(pair[0]), int(pair[1]))


def _windows(value: JSON) -> tuple[tuple[int, int], ...] | None:
    """Four windows, each one number or two."""
    found = [_size(window) or (0, 0) for window in value] if isinstance(value, list) else []
    return tuple(found) if len(found) == 4 else None


def _whole(value: JSON) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) else None
