"""DINOv2 of its authors (Apache 2.0), run from a clone; nothing of it is copied here."""

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import golden_numbers as numbers
import torch
from golden_recording import Ran, Recording
from torch import Tensor, nn

__all__ = ["record"]

TINY: dict[str, Any] = {
    "img_size": 70,
    "patch_size": 14,
    "embed_dim": 48,
    "depth": 4,
    "num_heads": 3,
    "init_values": 1.0,
}
# The released models: those with registers resample positions with antialiasing and no offset, the first ones without.
MODELS: dict[str, dict[str, Any]] = {
    "plain": {**TINY, "block_chunks": 0},
    "chunked": {**TINY, "block_chunks": 2},
    "registers": {
        **TINY,
        "block_chunks": 0,
        "num_register_tokens": 4,
        "interpolate_antialias": True,
        "interpolate_offset": 0.0,
    },
}
SIZES = {
    "plain": [[70, 70], [84, 56]],
    "chunked": [[70, 70]],
    "registers": [[70, 70], [98, 98], [56, 112], [42, 70]],
}


def record(clone: Path) -> Recording:
    """Run all cases.

    Args:
        clone: Root of a clone of github.com/facebookresearch/dinov2.
    """
    sys.path.insert(0, str(clone))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # xFormers is optional and absent
        module = importlib.import_module("dinov2.models.vision_transformer")
    recording = Recording(
        repository="github.com/facebookresearch/dinov2",
        licence="Apache-2.0",
        files=["dinov2/models/vision_transformer.py", "dinov2/layers/"],
        clone=clone,
        versions={},
    )
    for name, settings in MODELS.items():
        model = recording.fill(name, module.DinoVisionTransformer(**settings), settings)
        for height, width in SIZES[name]:
            _record(recording, name, model, [2, 3, height, width])
    return recording


def _record(recording: Recording, name: str, model: nn.Module, shape: list[int]) -> None:
    def run(dtype: torch.dtype) -> Ran:
        images = numbers.noise("images", shape).to(dtype).requires_grad_()
        found = cast(Any, model).forward_features(images)
        parts = ("x_norm_clstoken", "x_norm_regtokens", "x_norm_patchtokens")
        outputs = {part: found[part] for part in parts if found[part].numel()}
        numbers.probed(outputs).backward()
        return Ran(outputs=outputs, gradients={"images": cast(Tensor, images.grad)})

    recording.case(f"{name}_{shape[2]}x{shape[3]}", model, run, {"model": name, "images": shape})
