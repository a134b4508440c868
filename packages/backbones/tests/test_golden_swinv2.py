"""SwinV2 against numbers recorded from its authors' source: outputs and gradients (docs/numerical-truth.md)."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import golden_numbers as numbers
import pytest
import torch
from unveil_backbones import SwinConfig, SwinEncoder, rebuild
from unveil_backbones.swin import clamped_windows

SMALL = ["tiny_64", "non_square", "narrow_192_window12", "narrow_224_window14", "narrow_256_window16_of_8"]
BASE = pytest.param("base_192_window12", marks=pytest.mark.slow)


@cache
def golden():
    return numbers.read_golden(Path(__file__).parent / "golden" / "swinv2.json")


def theirs(name):
    """The reference's name of a tensor of ours: it has the merging at the end of a stage, timm at the beginning."""
    return re.sub(r"layers\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample", name)


def filled(case):
    """Our encoder with the weights of the case, every one of them."""
    settings = case["settings"]
    size, windows = tuple(settings["img_size"]), (settings["window_size"],) * 4
    pretrained = settings.get("pretrained_window_sizes")
    config = SwinConfig(
        image_size=size,
        width=settings["embed_dim"],
        depths=tuple(settings["depths"]),
        num_heads=tuple(settings["num_heads"]),
        window_sizes=windows,
        pretrained_window_sizes=tuple((w, w) for w in pretrained) if pretrained else clamped_windows(size, 4, windows),
    )
    encoder = SwinEncoder(config).eval()
    state = numbers.weights(case["shapes"])
    ours = {name: state.pop(theirs(name)) for name in encoder.state_dict()}
    assert not state
    encoder.load_state_dict(ours)
    return encoder


def run(encoder, images):
    """Outputs and gradients under the reference's names."""
    images.requires_grad_()
    rows, cols = encoder.grid(*images.shape[-2:])
    maps = encoder.features(images)
    outputs = {"encoded": encoder.encode(encoder.embed(images), (rows, cols))}
    outputs |= {f"stage_{stage}": value.flatten(2).transpose(1, 2) for stage, value in enumerate(maps)}
    encoder.zero_grad()
    numbers.probed(outputs).backward()
    gradients = {theirs(name): parameter.grad for name, parameter in encoder.named_parameters()}
    return outputs, gradients | {"images": images.grad}


def compare(name, dtype, encoder):
    case = golden()["cases"][name]
    encoder = encoder.to(dtype)
    outputs, gradients = run(encoder, numbers.noise("images", case["given"]["images"]).to(dtype))
    forward = max(numbers.output_difference(key, outputs[key], case["outputs"][key]) for key in case["outputs"])
    return forward, numbers.gradient_difference(gradients, case["gradients"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", [*SMALL, BASE])
def test_outputs_and_gradients_are_the_references(name, dtype):
    case = golden()["cases"][name]
    forward, backward = compare(name, dtype, filled(case))
    print(f"golden: swinv2 {name} {dtype} forward {forward:.1e} backward {backward:.1e}")
    assert forward <= numbers.bound(case, "forward", dtype)
    assert backward <= numbers.bound(case, "backward", dtype)


@pytest.mark.parametrize("name", ["tiny_64", "non_square", "narrow_224_window14"])
def test_they_are_with_every_optimisation_off(name):
    encoder = filled(golden()["cases"][name])
    encoder.set_optimisations([])
    assert max(compare(name, torch.float64, encoder)) <= 1e-10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["attention_8x16", "attention_16x8"])
def test_attention_and_position_bias_of_a_window_that_is_no_square(name, dtype):
    case = golden()["cases"][name]
    grid, pretrained = tuple(case["settings"]["grid"]), tuple(case["settings"]["pretrained"])
    # Windows are wanted larger than the grid, so that the first stage is one window of the grid's shape.
    config = SwinConfig(
        image_size=(4 * grid[0], 4 * grid[1]),
        width=16,
        depths=(1, 1, 1, 1),
        num_heads=(2, 2, 2, 2),
        window_sizes=(16,) * 4,
        pretrained_window_sizes=(pretrained if any(pretrained) else grid,) * 4,
    )
    encoder = SwinEncoder(config).eval()
    attention = {
        name if name.startswith("patch_embed") else f"layers.0.blocks.0.{name}": value
        for name, value in numbers.weights(case["shapes"]).items()
    }
    encoder.load_state_dict(encoder.state_dict() | attention)
    encoder = encoder.to(dtype)
    images = numbers.noise("images", case["given"]["images"]).to(dtype).requires_grad_()
    attended = encoder.intermediates(images, ["layers.0.blocks.0.attn"])["layers.0.blocks.0.attn"]
    numbers.probed({"attended": attended}).backward()
    gradients = {
        name.removeprefix("layers.0.blocks.0."): parameter.grad
        for name, parameter in encoder.named_parameters()
        if name in attention
    }
    forward = numbers.output_difference("attended", attended, case["outputs"]["attended"])
    backward = numbers.gradient_difference(gradients | {"images": images.grad}, case["gradients"])
    print(f"golden: swinv2 {name} {dtype} forward {forward:.1e} backward {backward:.1e}")
    assert forward <= numbers.bound(case, "forward", dtype)
    assert backward <= numbers.bound(case, "backward", dtype)


@pytest.mark.parametrize("which", range(0, 80, 9))
def test_a_small_change_of_any_weight_is_noticed(which):
    encoder = filled(golden()["cases"]["tiny_64"])
    parameters = list(encoder.parameters())
    parameter = parameters[which % len(parameters)]
    with torch.no_grad():
        parameter += 1e-3 * numbers.noise("change", parameter.shape).float()
    forward, backward = compare("tiny_64", torch.float64, encoder)
    assert min(forward, backward) > 1e-7


@pytest.mark.parametrize("pretrained", [((12, 12),) * 3 + ((7, 7),), ((14, 14),) * 4])
def test_another_window_of_pre_training_is_noticed(pretrained):
    encoder = filled(golden()["cases"]["narrow_224_window14"])
    assert encoder.config.pretrained_window_sizes == ((12, 12),) * 3 + ((6, 6),)
    other = rebuild(encoder, replace(encoder.config, pretrained_window_sizes=pretrained)).eval()
    assert compare("narrow_224_window14", torch.float64, other)[0] > 1e-4
