"""The video encoder against numbers recorded from VideoMAE's authors' source (docs/numerical-truth.md)."""

import re
from functools import cache
from pathlib import Path

import golden_numbers as numbers
import pytest
import torch
from unveil_backbones import VideoVitConfig, VideoVitEncoder

NAMES = ["encoder_tiny_32", pytest.param("encoder_base_224", marks=pytest.mark.slow)]


@cache
def golden():
    return numbers.read_golden(Path(__file__).parent / "golden" / "videomae.json")


def joined(state):
    """Weights of the reference under timm's names: queries and values have a bias there, keys have none."""
    found = {}
    for name, value in state.items():
        if name.endswith("q_bias"):
            values = state[name.replace("q_bias", "v_bias")]
            found[name.replace("q_bias", "qkv.bias")] = torch.cat([value, torch.zeros_like(value), values])
        elif not name.endswith("v_bias"):
            found[name] = value
    return found


def encoder_of(case):
    settings = case["settings"]
    encoder = VideoVitEncoder(
        VideoVitConfig(
            image_size=(settings["img_size"],) * 2,
            patch_size=settings["patch_size"],
            width=settings["encoder_embed_dim"],
            depth=settings["encoder_depth"],
            num_heads=settings["encoder_num_heads"],
        )
    )
    state = joined(numbers.weights(case["shapes"]))
    theirs = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    theirs.pop("head.weight", None)
    encoder.load_state_dict(theirs)
    return encoder.eval()


def keep_of(case, encoder):
    """Kept tokens in the reference's order: slot by slot, places in raster order."""
    hidden = torch.tensor(case["given"]["hidden_places"])
    frames, height, width = case["given"]["images"][2:]
    slots, rows, cols = encoder.clip_grid(frames, height, width)
    mask = torch.zeros(len(hidden), rows * cols, dtype=torch.bool).scatter(1, hidden, True).repeat(1, slots)
    return (~mask).nonzero()[:, 1].unflatten(0, (len(hidden), -1))


def compare(name, dtype, encoder):
    case = golden()["cases"][name]
    encoder = encoder.to(dtype)
    clips = numbers.noise("images", case["given"]["images"]).to(dtype).requires_grad_()
    keep = keep_of(case, encoder)
    outputs = {"latent": encoder.encode(encoder.embed(clips, keep), encoder.clip_grid(*clips.shape[2:]), keep)}
    numbers.probed(outputs).backward()
    gradients = {f"encoder.{key}": value.grad for key, value in encoder.named_parameters()}
    for key in [key for key in gradients if key.endswith("qkv.bias")]:
        query, of_keys, value = gradients.pop(key).chunk(3)
        assert of_keys.abs().max() < 1e-4 * max(1.0, float(query.abs().max()))  # softmax does not see a bias of keys
        gradients |= {key.replace("qkv.bias", "q_bias"): query, key.replace("qkv.bias", "v_bias"): value}
    forward = numbers.output_difference("latent", outputs["latent"], case["outputs"]["latent"])
    return forward, numbers.gradient_difference(gradients | {"images": clips.grad}, case["gradients"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients_are_the_references(name, dtype):
    case = golden()["cases"][name]
    forward, backward = compare(name, dtype, encoder_of(case))
    print(f"golden: videomae {name} {dtype} forward {forward:.1e} backward {backward:.1e}")
    assert forward <= numbers.bound(case, "forward", dtype)
    assert backward <= numbers.bound(case, "backward", dtype)


def test_they_are_with_every_optimisation_off():
    encoder = encoder_of(golden()["cases"]["encoder_tiny_32"])
    encoder.set_optimisations([])
    assert max(compare("encoder_tiny_32", torch.float64, encoder)) <= 1e-10


@pytest.mark.parametrize("which", range(0, 28, 4))
def test_a_small_change_of_any_weight_is_noticed(which):
    encoder = encoder_of(golden()["cases"]["encoder_tiny_32"])
    parameter = list(encoder.parameters())[which]
    with torch.no_grad():
        parameter += 1e-3 * numbers.noise("change", parameter.shape).float()
    assert min(compare("encoder_tiny_32", torch.float64, encoder)) > 1e-7


def test_other_positions_are_noticed():
    encoder = encoder_of(golden()["cases"]["encoder_tiny_32"])
    encoder.base_position = encoder.base_position.roll(1, 0)
    assert min(compare("encoder_tiny_32", torch.float64, encoder)) > 1e-3


def test_names_are_the_references_but_for_the_joint_bias():
    case = golden()["cases"]["encoder_tiny_32"]
    theirs = {re.sub(r"[qv]_bias$", "qkv.bias", name) for name in case["shapes"] if name.startswith("encoder.")}
    assert {f"encoder.{name}" for name in encoder_of(case).state_dict()} == theirs
