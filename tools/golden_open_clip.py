"""CLIP of open_clip (MIT), as installed: ``pip install open_clip_torch``; nothing of it is copied here."""

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import golden_numbers as numbers
import torch
from golden_recording import Ran, Recording
from torch import Tensor, nn

__all__ = ["record"]

EMBED_DIM = 20
VISION: dict[str, Any] = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "head_width": 8}
TEXT: dict[str, Any] = {"context_length": 10, "vocab_size": 50, "width": 24, "heads": 3, "layers": 2}
# CLIP's own vocabulary and heads of 64, which are what files without configuration are taken to have.
SMALL_VISION: dict[str, Any] = {"image_size": 32, "patch_size": 8, "width": 128, "layers": 2, "head_width": 64}
SMALL_TEXT: dict[str, Any] = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
BASE_VISION: dict[str, Any] = {"image_size": 224, "patch_size": 32, "width": 768, "layers": 12, "head_width": 64}
BASE_TEXT: dict[str, Any] = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}

# 48 and 49 stand for the beginning and the end of a text; the end is the largest number of a row.
IDS = [
    [48, 5, 6, 7, 49, 0, 0, 0, 0, 0],
    [48, 49, 0, 0, 0, 0, 0, 0, 0, 0],
    [48, *range(1, 9), 49],
    [48, 9, 8, 49, *[0] * 6],
]
BASE_IDS = [[49406, 320, 1125, 539, 320, 2368, 49407, *[0] * 70], [49406, 1047, 49407, *[0] * 74]]


def record(clone: Path | None) -> Recording:
    """Run all cases.

    Args:
        clone: Not needed; the package that is installed is run.
    """
    del clone
    module = importlib.import_module("open_clip.model")
    recording = Recording(
        repository="github.com/mlfoundations/open_clip",
        licence="MIT",
        files=["src/open_clip/model.py", "src/open_clip/transformer.py", "src/open_clip/loss.py"],
        clone=None,
        versions={"open_clip_torch": version("open_clip_torch")},
    )
    for name in ("gelu", "quick_gelu"):
        settings = {"embed_dim": EMBED_DIM, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": name == "quick_gelu"}
        model = recording.fill(name, module.CLIP(**settings), settings)
        _record(recording, name, name, model, [4, 3, 32, 32], IDS)
    settings = {"embed_dim": EMBED_DIM, "vision_cfg": {**VISION, "patch_dropout": 0.5}, "text_cfg": TEXT}
    model = recording.fill("patch_dropout", module.CLIP(**settings), settings)
    _record(recording, "patch_dropout", "patch_dropout", model, [4, 3, 32, 32], IDS, dropped=True)
    _record_resized(recording, module)
    _record_loss(recording)
    settings = {"embed_dim": EMBED_DIM, "vision_cfg": SMALL_VISION, "text_cfg": SMALL_TEXT}
    model = recording.fill("small", module.CLIP(**settings), settings)
    _record(recording, "small", "small", model, [2, 3, 32, 32], BASE_IDS)
    settings = {"embed_dim": 512, "vision_cfg": BASE_VISION, "text_cfg": BASE_TEXT}
    model = recording.fill("base", module.CLIP(**settings), settings)
    _record(recording, "base", "base", model, [2, 3, 224, 224], BASE_IDS)
    return recording


def _record(
    recording: Recording,
    name: str,
    model_name: str,
    model: nn.Module,
    shape: list[int],
    ids: list[list[int]],
    *,
    dropped: bool = False,
) -> None:
    clip_loss = importlib.import_module("open_clip.loss").ClipLoss()
    drawn = numbers.noise("masks", (shape[0], 16))
    model.train(dropped)

    def run(dtype: torch.dtype) -> Ran:
        images = numbers.noise("images", shape).to(dtype).requires_grad_()
        with patch("torch.randn", lambda *sizes: drawn):
            image = cast(Any, model).encode_image(images, normalize=True)
        text = cast(Any, model).encode_text(torch.tensor(ids), normalize=True)
        loss = clip_loss(image, text, cast(Tensor, model.logit_scale).exp())
        loss.backward()
        outputs = {"image": image, "text": text}
        return Ran(outputs=outputs, losses={"loss": loss}, gradients={"images": cast(Tensor, images.grad)})

    given: dict[str, Any] = {"model": model_name, "images": shape, "ids": ids}
    if dropped:
        given["keep"] = drawn.topk(8).indices.tolist()
    recording.case(name, model, run, given)


class _Vectors(nn.Module):
    """Six pairs of vectors and a temperature, to be filled like weights."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.zeros(6, EMBED_DIM))
        self.text = nn.Parameter(torch.zeros(6, EMBED_DIM))
        self.logit_scale = nn.Parameter(torch.zeros(()))


def _record_loss(recording: Recording) -> None:
    clip_loss = importlib.import_module("open_clip.loss").ClipLoss()
    vectors = _Vectors()
    recording.fill("vectors", vectors, {})

    def run(dtype: torch.dtype) -> Ran:
        image, text = (nn.functional.normalize(part, dim=1) for part in (vectors.image, vectors.text))
        loss = clip_loss(image, text, vectors.logit_scale.exp())
        loss.backward()
        return Ran(outputs={"image": image.to(dtype)}, losses={"loss": loss})

    recording.case("loss_of_vectors", vectors, run, {"model": "vectors"})


def _record_resized(recording: Recording, module: Any) -> None:
    """Weights of a model for 32 x 32 pixels, brought to other sizes as open_clip does when it loads a file."""
    settings = {"embed_dim": EMBED_DIM, "vision_cfg": VISION, "text_cfg": TEXT}
    state = recording.fill("resized", module.CLIP(**settings), settings).state_dict()
    for height, width in ((48, 48), (24, 56)):
        model = module.CLIP(**{**settings, "vision_cfg": {**VISION, "image_size": (height, width)}}).eval()
        resized = dict(state)
        module.resize_pos_embed(resized, model)
        model.load_state_dict(resized)

        def run(dtype: torch.dtype, model: Any = model, shape: Any = (4, 3, height, width)) -> Ran:
            images = numbers.noise("images", shape).to(dtype).requires_grad_()
            outputs = {"image": model.encode_image(images, normalize=True)}
            numbers.probed(outputs).backward()
            # The table has another shape than the one that is filled.
            model.visual.positional_embedding.grad = None
            return Ran(outputs=outputs, gradients={"images": cast(Tensor, images.grad)})

        recording.case(f"resized_{height}x{width}", model, run, {"model": "resized", "images": [4, 3, height, width]})
