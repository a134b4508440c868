"""Swin Transformer V2 and SimMIM of their authors (MIT), run from a clone; nothing of them is copied here."""

import importlib
import math
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import golden_numbers as numbers
import timm
import torch
from golden_recording import Ran, Recording
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["record"]

TINY = {"patch_size": 4, "embed_dim": 16, "depths": [1, 2, 3, 1], "num_heads": [2, 2, 4, 4]}
NARROW = {"patch_size": 4, "embed_dim": 16, "depths": [2, 2, 2, 1], "num_heads": [2, 2, 4, 4]}
BASE = {"patch_size": 4, "embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}

ENCODERS: dict[str, dict[str, Any]] = {
    "tiny_64": {**TINY, "img_size": [64, 64], "window_size": 4},
    "non_square": {**TINY, "img_size": [128, 64], "window_size": 2},
    "narrow_192_window12": {**NARROW, "img_size": [192, 192], "window_size": 12},
    "narrow_224_window14": {
        **NARROW,
        "img_size": [224, 224],
        "window_size": 14,
        "pretrained_window_sizes": [12, 12, 12, 6],
    },
    "narrow_256_window16_of_8": {
        **NARROW,
        "img_size": [256, 256],
        "window_size": 16,
        "pretrained_window_sizes": [8, 8, 8, 4],
    },
    "base_192_window12": {**BASE, "img_size": [192, 192], "window_size": 12},
}
MASKED: dict[str, dict[str, Any]] = {
    "simmim_tiny_raw": {**TINY, "img_size": [64, 64], "window_size": 4, "target_window": 0, "unit": 4},
    "simmim_tiny_47": {**TINY, "img_size": [64, 64], "window_size": 4, "target_window": 47, "unit": 4},
    "simmim_192_47": {**NARROW, "img_size": [192, 192], "window_size": 12, "target_window": 47, "unit": 8},
}
# One window that covers a grid whose sides differ, and windows of pre-training that differ from it on each axis.
WINDOWS: dict[str, dict[str, Any]] = {
    "attention_8x16": {"grid": [8, 16], "pretrained": [4, 12]},
    "attention_16x8": {"grid": [16, 8], "pretrained": [0, 0]},
}


def record(clone: Path) -> Recording:
    """Run all cases.

    Args:
        clone: Root of a clone of github.com/microsoft/Swin-Transformer.
    """
    module = _load(clone)
    recording = Recording(
        repository="github.com/microsoft/Swin-Transformer",
        licence="MIT",
        files=["models/swin_transformer_v2.py", "models/simmim.py"],
        clone=clone,
        versions={"timm": timm.__version__},
    )
    for name, settings in ENCODERS.items():
        _record_encoder(recording, module, name, settings)
    for name, settings in WINDOWS.items():
        _record_attention(recording, module, name, settings)
    for name, settings in MASKED.items():
        _record_simmim(recording, module, name, settings)
    return recording


def _load(clone: Path) -> ModuleType:
    """Import the clone's SimMIM without running its package, which imports every other model."""
    package = ModuleType("reference_swin")
    package.__path__ = [str(clone / "models")]
    sys.modules["reference_swin"] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("reference_swin.simmim")


def _record_encoder(recording: Recording, module: ModuleType, name: str, settings: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = module.SwinTransformerV2(num_classes=0, drop_path_rate=0.0, **settings)
    model = recording.fill(name, model, settings)
    shape = [1 if "base" in name else 2, 3, *settings["img_size"]]

    def run(dtype: torch.dtype) -> Ran:
        images = numbers.noise("images", shape).to(dtype).requires_grad_()
        outputs = _encoded(model, images)
        numbers.probed(outputs).backward()
        return Ran(outputs=outputs, gradients={"images": cast(Tensor, images.grad)})

    recording.case(name, model, run, {"images": shape})


def _encoded(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The tokens after the final norm, and the four stages before merging."""
    found: dict[str, Tensor] = {}

    def keep(name: str, part: nn.Module) -> RemovableHandle:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            found[name] = output

        return part.register_forward_hook(hook)

    handles = [keep("encoded", model.get_submodule("norm"))]
    for stage, layer in enumerate(model.get_submodule("layers").children()):
        *_, last = layer.get_submodule("blocks").children()
        handles.append(keep(f"stage_{stage}", last))
    model(images)
    for handle in handles:
        handle.remove()
    return dict(sorted(found.items()))


def _record_attention(recording: Recording, module: ModuleType, name: str, settings: dict[str, Any]) -> None:
    """The attention of a window that is no square, which the reference's module can do and its encoder cannot."""
    height, width = (4 * side for side in settings["grid"])
    parts = importlib.import_module("reference_swin.swin_transformer_v2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        embed = parts.PatchEmbed((height, width), 4, 3, 16, nn.LayerNorm)
        attention = parts.WindowAttention(16, settings["grid"], 2, pretrained_window_size=settings["pretrained"])
    model = nn.ModuleDict({"patch_embed": embed, "attn": attention})
    recording.fill(name, model, settings)

    def run(dtype: torch.dtype) -> Ran:
        images = numbers.noise("images", (2, 3, height, width)).to(dtype).requires_grad_()
        outputs = {"attended": attention(embed(images))}
        numbers.probed(outputs).backward()
        return Ran(outputs=outputs, gradients={"images": cast(Tensor, images.grad)})

    recording.case(name, model, run, {"images": [2, 3, height, width]})


def _record_simmim(recording: Recording, module: ModuleType, name: str, settings: dict[str, Any]) -> None:
    shape = {key: value for key, value in settings.items() if key not in ("target_window", "unit")}
    window = settings["target_window"]
    config = SimpleNamespace(NORM_TARGET=SimpleNamespace(ENABLE=window > 0, PATCH_SIZE=window))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = module.SwinTransformerV2ForSimMIM(num_classes=0, drop_path_rate=0.0, **shape)
        model = module.SimMIM(config, encoder, 32, 3, 4)
    model = recording.fill(name, model, settings)
    height, width = settings["img_size"]
    rows, cols = height // 4 // settings["unit"], width // 4 // settings["unit"]
    hidden = numbers.noise("units", (2, rows * cols)).argsort(1)[:, : math.ceil(0.6 * rows * cols)]
    units = torch.zeros(2, rows * cols, dtype=torch.int64).scatter(1, hidden, 1).view(2, rows, cols)
    mask = units.repeat_interleave(settings["unit"], 1).repeat_interleave(settings["unit"], 2)

    def run(dtype: torch.dtype) -> Ran:
        images = numbers.pictures((2, 3, height, width)).to(dtype)
        encoded = model.get_submodule("encoder")(images, mask)
        loss = model(images, mask)
        loss.backward()
        outputs = {"encoded": encoded, "target": module.norm_targets(images, window) if window else images}
        return Ran(outputs=outputs, losses={"loss": loss})

    recording.case(name, model, run, {"images": [2, 3, height, width], "hidden_units": units.tolist()})
