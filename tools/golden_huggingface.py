"""Models of transformers (Apache 2.0), as installed; they are filled through files, whose names are recorded."""

import importlib
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import golden_numbers as numbers
import torch
from golden_recording import Ran, Recording
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = ["record"]

# Not a requirement of the workspace; whoever records installs it.
transformers: Any = importlib.import_module("transformers")

_VIT: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
_SWIN: dict[str, Any] = {"patch_size": 4, "embed_dim": 16, "depths": [1, 2, 3, 1], "num_heads": [2, 2, 4, 4]}
# CLIP's own vocabulary, whose last two numbers are the beginning and the end of a text; the rest is padding.
_IDS = [[49406, 320, 1125, 539, 2368, *[49407] * 3], [49406, *[49407] * 7], [49406, *range(320, 326), 49407]]


def record(clone: Path | None) -> Recording:
    """Run all cases.

    Args:
        clone: Not needed; the package that is installed is run.
    """
    del clone
    recording = Recording(
        repository="github.com/huggingface/transformers",
        licence="Apache-2.0",
        files=["models/vit", "models/vit_mae", "models/swinv2", "models/clip"],
        clone=None,
        versions={"transformers": transformers.__version__},
    )
    vit = transformers.ViTModel(transformers.ViTConfig(**_VIT), add_pooling_layer=False)
    _record_vision(recording, "vit", vit, [2, 3, 32, 32])
    swin = transformers.Swinv2Config(**_SWIN, image_size=64, window_size=4)
    _record_vision(recording, "swinv2_64", transformers.Swinv2Model(swin, add_pooling_layer=False), [2, 3, 64, 64])
    swin = transformers.Swinv2Config(**_SWIN, image_size=128, window_size=8, pretrained_window_sizes=[4, 4, 4, 2])
    _record_vision(recording, "swinv2_128", transformers.Swinv2Model(swin, add_pooling_layer=False), [2, 3, 128, 128])
    _record_mae(recording)
    _record_clip(recording)
    return recording


def _filled(recording: Recording, name: str, model: Any, fixed: tuple[str, ...] = ()) -> nn.Module:
    """Write the model's file, fill it by formula and read it again, so that names are those of files."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder)
        file = Path(folder) / "model.safetensors"
        state = load_file(file)
        kept = {key: value for key, value in state.items() if key.endswith(fixed)} if fixed else {}
        shapes = {key: list(value.shape) for key, value in state.items() if key not in kept}
        save_file({**kept, **numbers.weights(shapes)}, file, metadata={"format": "pt"})
        config = json.loads((Path(folder) / "config.json").read_text())
        filled = type(model).from_pretrained(folder, attn_implementation="eager").eval()
    noted = {key: numbers.output_numbers(key, value) for key, value in kept.items()}
    recording.note(name, config, shapes, noted)
    return filled.requires_grad_(False)


def _record_vision(recording: Recording, name: str, model: Any, shape: list[int]) -> None:
    filled = _filled(recording, name, model)

    def run(dtype: torch.dtype) -> Ran:
        images = numbers.noise("images", shape).to(dtype).requires_grad_()
        return _ran({"tokens": filled(images).last_hidden_state}, images)

    recording.case(name, filled, run, {"images": shape})


def _record_mae(recording: Recording) -> None:
    config = transformers.ViTMAEConfig(
        **_VIT,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
    )
    model = transformers.ViTMAEForPreTraining(config)
    filled = _filled(recording, "vit_mae", model, ("position_embeddings", "decoder_pos_embed"))
    drawn = numbers.noise("masks", (2, 16))

    def run(dtype: torch.dtype) -> Ran:
        images = numbers.noise("images", (2, 3, 32, 32)).to(dtype).requires_grad_()
        return _ran({"tokens": filled.get_submodule("vit")(images, noise=drawn).last_hidden_state}, images)

    keep = drawn.argsort(1)[:, :4].tolist()
    recording.case("vit_mae", filled, run, {"images": [2, 3, 32, 32], "keep": keep})


def _record_clip(recording: Recording) -> None:
    config = transformers.CLIPConfig(
        text_config={
            "vocab_size": 49408,
            "hidden_size": 24,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "max_position_embeddings": 8,
            "bos_token_id": 49406,
            "eos_token_id": 49407,
        },
        vision_config=_VIT,
        projection_dim=20,
    )
    filled: Any = _filled(recording, "clip", transformers.CLIPModel(config))

    def run(dtype: torch.dtype) -> Ran:
        images = numbers.noise("images", (3, 3, 32, 32)).to(dtype).requires_grad_()
        out = filled(input_ids=torch.tensor(_IDS), pixel_values=images)
        return _ran({"image": out.image_embeds, "text": out.text_embeds}, images)

    recording.case("clip", filled, run, {"images": [3, 3, 32, 32], "ids": _IDS})


def _ran(outputs: dict[str, Tensor], images: Tensor) -> Ran:
    numbers.probed(outputs).backward()
    assert images.grad is not None
    return Ran(outputs=outputs, gradients={"images": images.grad})
