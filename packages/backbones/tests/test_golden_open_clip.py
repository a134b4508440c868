"""CLIP pairs against numbers recorded from open_clip: vectors, loss and gradients (docs/numerical-truth.md)."""

from functools import cache
from pathlib import Path

import golden_numbers as numbers
import pytest
import torch
from golden_names import open_clip_name
from torch import Tensor
from torch.nn.functional import cross_entropy
from unveil_backbones import ImageTextPair, TextConfig, TextTower, VitConfig, VitEncoder

WHOLE = ["gelu", "quick_gelu", "patch_dropout", "small", pytest.param("base", marks=pytest.mark.slow)]
RESIZED = ["resized_48x48", "resized_24x56"]


@cache
def golden():
    return numbers.read_golden(Path(__file__).parent / "golden" / "open_clip.json")


def as_theirs(name: str, tensor: Tensor) -> Tensor:
    """A tensor of ours, weight or gradient, in open_clip's shape."""
    if name.endswith("_projection.weight"):
        return tensor.T
    return tensor.squeeze((0, 1)) if name.endswith(("cls_token", "pos_embed")) else tensor


def filled(case):
    """Our pair with the weights of the case, every one of them."""
    settings = case["settings"]
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    activation = "quick_gelu" if settings.get("quick_gelu") else "gelu"
    encoder = VitConfig(
        image_size=(vision["image_size"],) * 2,
        patch_size=vision["patch_size"],
        width=vision["width"],
        depth=vision["layers"],
        num_heads=vision["width"] // vision["head_width"],
        position="learned",
        class_position=True,
        pooling="cls",
        pre_norm=True,
        patch_bias=False,
        activation=activation,
        norm_epsilon=1e-5,
    )
    tower = TextConfig(
        vocab_size=text["vocab_size"],
        length=text["context_length"],
        width=text["width"],
        depth=text["layers"],
        num_heads=text["heads"],
        causal=True,
        pooling="eot",
        activation=activation,
        norm_epsilon=1e-5,
    )
    pair = ImageTextPair(VitEncoder(encoder), TextTower(tower), settings["embed_dim"]).eval()
    state = numbers.weights(case["shapes"])
    with torch.no_grad():
        for name, parameter in pair.named_parameters():
            weight = state.pop(open_clip_name(name))
            parameter.copy_(weight.T if name.endswith("_projection.weight") else weight.view_as(parameter))
    assert not state
    return pair


def run(case, dtype, pair):
    """Differences of outputs, loss and gradients; the loss is the cross-entropy of both directions, written out."""
    given = case["given"]
    images = numbers.noise("images", given["images"]).to(dtype).requires_grad_()
    keep = torch.tensor(given["keep"]) if "keep" in given else None
    grid = pair.encoder.grid(*images.shape[-2:])
    outputs = {"image": pair.encode_image_tokens(pair.encoder.embed(images, keep), grid, keep)}
    differences = []
    if "ids" in given:
        outputs["text"] = pair.encode_text(torch.tensor(given["ids"]))
        logits = pair.logit_scale.exp() * outputs["image"] @ outputs["text"].T
        partner = torch.arange(len(logits))
        loss = (cross_entropy(logits, partner) + cross_entropy(logits.T, partner)) / 2
        differences.append(abs(loss.item() - case["losses"]["loss"]))
        loss.backward()
    else:
        numbers.probed(outputs).backward()
    differences += [numbers.output_difference(name, value, case["outputs"][name]) for name, value in outputs.items()]
    gradients = {
        open_clip_name(name): as_theirs(name, parameter.grad)
        for name, parameter in pair.named_parameters()
        if open_clip_name(name) in case["gradients"]
    }
    return max(differences), numbers.gradient_difference(gradients | {"images": images.grad}, case["gradients"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", [*WHOLE, *RESIZED])
def test_vectors_loss_and_gradients_are_the_references(name, dtype):
    case = golden()["cases"][name]
    forward, backward = run(case, dtype, filled(case).to(dtype))
    print(f"golden: open_clip {name} {dtype} forward {forward:.1e} backward {backward:.1e}")
    # Resampling is done in float32 by both sides.
    resampled = 1e-6 if name in RESIZED and dtype == torch.float64 else 0.0
    assert forward <= max(numbers.bound(case, "forward", dtype), resampled)
    assert backward <= max(numbers.bound(case, "backward", dtype), resampled)


@pytest.mark.parametrize("name", ["gelu", "patch_dropout"])
def test_they_are_with_every_optimisation_off(name):
    case = golden()["cases"][name]
    pair = filled(case).double()
    pair.encoder.set_optimisations([])
    pair.text.set_optimisations([])
    assert max(run(case, torch.float64, pair)) <= 1e-10


@pytest.mark.parametrize("which", range(0, 60, 7))
def test_a_small_change_of_any_weight_is_noticed(which):
    case = golden()["cases"]["gelu"]
    pair = filled(case)
    parameter = list(pair.parameters())[which]
    with torch.no_grad():
        parameter += 1e-3 * numbers.noise("change", parameter.shape).float()
    assert min(run(case, torch.float64, pair.double())) > 1e-7


def test_another_activation_is_noticed():
    cases = golden()["cases"]
    assert min(run(cases["gelu"], torch.float64, filled(cases["quick_gelu"]).double())) > 1e-5
