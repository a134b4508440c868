"""VideoMAE of its authors (CC BY-NC 4.0), run from a clone; nothing of it is copied here.

It needs einops beside today's timm: ``pip install --target FOLDER einops`` and ``PYTHONPATH=FOLDER``. Its training
step is what makes the loss, so that step runs as it is, with a list of one batch and an optimiser that only goes back.
"""

import importlib
import sys
import warnings
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock, patch

import golden_numbers as numbers
import torch
from golden_recording import Ran, Recording
from torch import Tensor, nn

__all__ = ["record"]

TINY: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "encoder_embed_dim": 32,
    "encoder_depth": 2,
    "encoder_num_heads": 2,
    "decoder_num_classes": 384,
    "decoder_embed_dim": 16,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
}
BASE: dict[str, Any] = {
    "img_size": 224,
    "patch_size": 16,
    "encoder_embed_dim": 768,
    "encoder_depth": 12,
    "encoder_num_heads": 12,
    "decoder_num_classes": 1536,
    "decoder_embed_dim": 384,
    "decoder_depth": 4,
    "decoder_num_heads": 6,
}
MODELS = {"tiny_32": TINY, "base_224": BASE}
FRAMES, TUBELET = 16, 2
"""Of every clip: the reference's positions are made for these."""


def record(clone: Path) -> Recording:
    """Run all cases.

    Args:
        clone: Root of a clone of github.com/MCG-NJU/VideoMAE.
    """
    model_module, engine = _load(clone)
    recording = Recording(
        repository="github.com/MCG-NJU/VideoMAE",
        licence="CC BY-NC 4.0 (run, not copied)",
        files=["modeling_pretrain.py", "modeling_finetune.py", "engine_for_pretraining.py"],
        clone=clone,
        versions={"timm": str(importlib.import_module("timm").__version__)},
    )
    for name, settings in MODELS.items():
        norm = partial(nn.LayerNorm, eps=1e-6)
        model = model_module.PretrainVisionTransformer(qkv_bias=True, norm_layer=norm, **settings)
        _record(recording, name, recording.fill(name, model, settings), engine, settings)
    return recording


def _load(clone: Path) -> tuple[ModuleType, ModuleType]:
    """Import model and training step of the clone; logging is left out."""
    sys.path.insert(0, str(clone))
    logging = ModuleType("utils")
    logging.__dict__.update(MetricLogger=_Quiet, SmoothedValue=MagicMock)
    sys.modules["utils"] = logging
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm has moved what the clone imports
        return importlib.import_module("modeling_pretrain"), importlib.import_module("engine_for_pretraining")


class _Quiet(MagicMock):
    """A metric logger that hands the batches on."""

    def log_every(self, batches: Any, *_: Any) -> Any:
        return batches


def _record(recording: Recording, name: str, model: nn.Module, engine: ModuleType, settings: dict[str, Any]) -> None:
    side, places = settings["img_size"], (settings["img_size"] // settings["patch_size"]) ** 2
    shape = [1 if name.startswith("base") else 2, 3, FRAMES, side, side]
    hidden = numbers.noise("masks", (shape[0], places)).argsort(1)[:, : int(0.9 * places)]
    mask = torch.zeros(shape[0], places, dtype=torch.bool).scatter(1, hidden, True).repeat(1, FRAMES // TUBELET)

    def run_encoder(dtype: torch.dtype) -> Ran:
        clips = numbers.noise("images", shape).to(dtype).requires_grad_()
        outputs = {"latent": cast(Any, model).encoder(clips, mask)}
        numbers.probed(outputs).backward()
        return Ran(outputs=outputs, gradients={"images": cast(Tensor, clips.grad)})

    def run_loss(dtype: torch.dtype) -> Ran:
        clips = numbers.noise("images", shape).to(dtype)
        losses: list[Tensor] = []

        class Back:
            """Goes back where a loss scaler would."""

            def __call__(self, loss: Tensor, *_: Any, **__: Any) -> None:
                losses.append(loss.detach())
                loss.backward()

            def state_dict(self) -> dict[str, float]:
                return {"scale": 1.0}

        optimiser = SimpleNamespace(zero_grad=model.zero_grad, param_groups=[{"lr": 0.0, "weight_decay": 0.0}])
        with patch("torch.cuda.synchronize"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # autocast without a GPU does nothing, and says so
            engine.train_one_epoch(
                model, [(clips, mask)], optimiser, torch.device("cpu"), 0, Back(),
                patch_size=settings["patch_size"], start_steps=0,
            )  # fmt: skip
        model.eval()
        with torch.no_grad():
            prediction = model(clips, mask)
        return Ran(outputs={"prediction": prediction}, losses={"loss": losses[0]})

    given = {"model": name, "images": shape, "hidden_places": hidden.tolist()}
    recording.case(f"encoder_{name}", model, run_encoder, given)
    recording.case(f"loss_{name}", model, run_loss, given)
