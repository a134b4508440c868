"""SimMIM on a Vision Transformer, of its authors (MIT), run from a clone; nothing of it is copied here."""

import importlib
import sys
import warnings
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import golden_numbers as numbers
import timm
import torch
from golden_recording import Ran, Recording
from torch import nn

__all__ = ["record"]

# Learned positions instead of the authors' relative biases: what has to agree is where the mask token comes in.
CASES: dict[str, dict[str, Any]] = {
    "simmim_vit_64": {
        "img_size": 64, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "use_abs_pos_emb": True,
        "use_mean_pooling": False, "unit": 2,
    },
    "simmim_vit_224": {
        "img_size": 224, "patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 4, "use_abs_pos_emb": True,
        "use_mean_pooling": False, "unit": 2,
    },
}  # fmt: skip


def record(clone: Path) -> Recording:
    """Run all cases.

    Args:
        clone: Root of a clone of github.com/microsoft/SimMIM.
    """
    package = ModuleType("reference_simmim")
    package.__path__ = [str(clone / "models")]
    sys.modules["reference_simmim"] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("reference_simmim.simmim")
    recording = Recording(
        repository="github.com/microsoft/SimMIM",
        licence="MIT",
        files=["models/simmim.py", "models/vision_transformer.py"],
        clone=clone,
        versions={"timm": timm.__version__},
    )
    for name, settings in CASES.items():
        _record(recording, module, name, settings)
    return recording


def _record(recording: Recording, module: ModuleType, name: str, settings: dict[str, Any]) -> None:
    given = {key: value for key, value in settings.items() if key != "unit"}
    side, patch = settings["img_size"], settings["patch_size"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = module.VisionTransformerForSimMIM(num_classes=0, norm_layer=partial(nn.LayerNorm, eps=1e-6), **given)
        model = module.SimMIM(encoder, encoder_stride=patch)
    model = recording.fill(name, model, settings)
    units = numbers.noise("hidden units", (2, side // patch // settings["unit"], side // patch // settings["unit"]))
    count = -(-units[0].numel() * 6 // 10)
    hidden = torch.zeros(2, units[0].numel(), dtype=torch.int64)
    hidden = hidden.scatter(1, units.flatten(1).argsort(1)[:, :count], 1).view_as(units)
    mask = hidden.repeat_interleave(settings["unit"], 1).repeat_interleave(settings["unit"], 2)
    shape = [2, 3, side, side]

    def run(dtype: torch.dtype) -> Ran:
        images = numbers.pictures(shape).to(dtype)
        encoded = model.get_submodule("encoder")(images, mask)
        loss = model(images, mask)
        loss.backward()
        return Ran(outputs={"encoded": encoded}, losses={"loss": loss})

    recording.case(name, model, run, {"images": shape, "hidden_units": hidden.tolist()})
