"""MAE of its authors (CC BY-NC 4.0), run from a clone; nothing of it is copied here.

The clone asks for timm 0.3.2: ``pip install --no-deps --target FOLDER timm==0.3.2`` and ``PYTHONPATH=FOLDER``.
"""

import collections.abc
import importlib
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import golden_numbers as numbers
import numpy as np
import torch
from golden_recording import Ran, Recording
from torch import Tensor, nn

__all__ = ["record"]

TINY: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "decoder_embed_dim": 16,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
}
NARROW: dict[str, Any] = {
    "img_size": 224,
    "patch_size": 16,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
    "decoder_embed_dim": 32,
    "decoder_depth": 2,
    "decoder_num_heads": 4,
}
BASE: dict[str, Any] = {
    "img_size": 224,
    "patch_size": 16,
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "decoder_embed_dim": 512,
    "decoder_depth": 8,
    "decoder_num_heads": 16,
}
MODELS: dict[str, dict[str, Any]] = {
    "tiny_32_raw": {**TINY, "norm_pix_loss": False},
    "tiny_32_normalised": {**TINY, "norm_pix_loss": True},
    "narrow_224": {**NARROW, "norm_pix_loss": True},
    "base_224": {**BASE, "norm_pix_loss": True},
}


def record(clone: Path) -> Recording:
    """Run all cases.

    Args:
        clone: Root of a clone of github.com/facebookresearch/mae.
    """
    module, version = _load(clone)
    recording = Recording(
        repository="github.com/facebookresearch/mae",
        licence="CC BY-NC 4.0 (run, not copied)",
        files=["models_mae.py", "util/pos_embed.py"],
        clone=clone,
        versions={"timm": version},
    )
    for name, settings in MODELS.items():
        model = module.MaskedAutoencoderViT(norm_layer=partial(nn.LayerNorm, eps=1e-6), **settings)
        _record(recording, name, recording.fill(name, model, settings), settings)
    return recording


def _load(clone: Path) -> tuple[ModuleType, str]:
    """Import the clone with stand-ins for what PyTorch and NumPy have dropped since; return it and timm's version."""
    dropped = ModuleType("torch._six")
    dropped.__dict__["container_abcs"] = collections.abc
    sys.modules["torch._six"] = dropped
    sys.path.insert(0, str(clone))
    module = importlib.import_module("models_mae")
    positions = importlib.import_module("util.pos_embed")
    positions.__dict__["np"] = SimpleNamespace(**{**vars(np), "float": float})
    return module, str(importlib.import_module("timm").__version__)


def _record(recording: Recording, name: str, model: nn.Module, settings: dict[str, Any]) -> None:
    side = settings["img_size"]
    cells = (side // settings["patch_size"]) ** 2
    shape = [1 if name.startswith("base") else 2, 3, side, side]
    drawn = numbers.noise("masks", (shape[0], cells))
    keep = drawn.argsort(1)[:, : cells // 4]

    def encode(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with patch("torch.rand", lambda *sizes, device: drawn):
            return cast(Any, model).forward_encoder(images, 0.75)

    def run_encoder(dtype: torch.dtype) -> Ran:
        images = numbers.noise("images", shape).to(dtype).requires_grad_()
        outputs = {"latent": encode(images)[0]}
        numbers.probed(outputs).backward()
        return Ran(outputs=outputs, gradients={"images": cast(Tensor, images.grad)})

    def run_loss(dtype: torch.dtype) -> Ran:
        images = numbers.noise("images", shape).to(dtype)
        latent, mask, restore = encode(images)
        prediction = cast(Any, model).forward_decoder(latent, restore)
        loss = cast(Any, model).forward_loss(images, prediction, mask)
        loss.backward()
        return Ran(outputs={"prediction": prediction}, losses={"loss": loss})

    given = {"model": name, "images": shape, "keep": keep.tolist()}
    if settings["norm_pix_loss"]:
        recording.case(f"encoder_{name}", model, run_encoder, given)
    recording.case(f"loss_{name}", model, run_loss, given)
