"""MAE's encoder against numbers recorded from its authors' source on given kept sets (docs/numerical-truth.md)."""

from functools import cache
from pathlib import Path

import golden_numbers as numbers
import pytest
import torch
from unveil_backbones import VitConfig, VitEncoder
from unveil_backbones.position import sin_cos_position

NAMES = [
    "encoder_tiny_32_normalised",
    "encoder_narrow_224",
    pytest.param("encoder_base_224", marks=pytest.mark.slow),
]


@cache
def golden():
    return numbers.read_golden(Path(__file__).parent / "golden" / "mae.json")


def filled(case):
    """Our encoder with the weights of the case; the names are the same, the decoder's are left."""
    settings = case["settings"]
    config = VitConfig(
        image_size=(settings["img_size"],) * 2,
        patch_size=settings["patch_size"],
        width=settings["embed_dim"],
        depth=settings["depth"],
        num_heads=settings["num_heads"],
    )
    encoder = VitEncoder(config).eval()
    state = numbers.weights(case["shapes"])
    encoder.load_state_dict({name: state.pop(name) for name in encoder.state_dict()})
    assert all(name.startswith(("decoder_", "mask_token")) for name in state)
    return encoder


def compare(name, dtype, encoder):
    case = golden()["cases"][name]
    encoder = encoder.to(dtype)
    images = numbers.noise("images", case["given"]["images"]).to(dtype).requires_grad_()
    keep = torch.tensor(case["given"]["keep"])
    outputs = {"latent": encoder.encode(encoder.embed(images, keep), encoder.grid(*images.shape[-2:]))}
    numbers.probed(outputs).backward()
    gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()} | {"images": images.grad}
    forward = numbers.output_difference("latent", outputs["latent"], case["outputs"]["latent"])
    return forward, numbers.gradient_difference(gradients, case["gradients"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients_are_the_references(name, dtype):
    case = golden()["cases"][name]
    forward, backward = compare(name, dtype, filled(case))
    print(f"golden: mae {name} {dtype} forward {forward:.1e} backward {backward:.1e}")
    assert forward <= numbers.bound(case, "forward", dtype)
    assert backward <= numbers.bound(case, "backward", dtype)


@pytest.mark.parametrize("name", NAMES[:2])
def test_they_are_with_every_optimisation_off(name):
    encoder = filled(golden()["cases"][name])
    encoder.set_optimisations([])
    assert max(compare(name, torch.float64, encoder)) <= 1e-10


@pytest.mark.parametrize("case", ["tiny_32_raw", "narrow_224", "base_224"])
@pytest.mark.parametrize("part", ["pos_embed", "decoder_pos_embed"])
def test_fixed_positions_are_the_references(case, part):
    recorded = golden()["models"][case]["fixed"][part]
    _, num, width = recorded["shape"]
    side = round((num - 1) ** 0.5)
    found = sin_cos_position(side, side, width, base_rows=side, base_cols=side)
    whole = torch.cat([torch.zeros(1, width), found])[None]
    # Both are float32; the recorded ones went through NumPy.
    assert numbers.output_difference(part, whole, recorded) <= 1.2e-7


@pytest.mark.parametrize("which", range(0, 28, 4))
def test_a_small_change_of_any_weight_is_noticed(which):
    encoder = filled(golden()["cases"]["encoder_tiny_32_normalised"])
    parameter = list(encoder.parameters())[which]
    with torch.no_grad():
        parameter += 1e-3 * numbers.noise("change", parameter.shape).float()
    assert min(compare("encoder_tiny_32_normalised", torch.float64, encoder)) > 1e-7


def test_another_kept_set_is_noticed():
    case = golden()["cases"]["encoder_tiny_32_normalised"]
    kept = case["given"]["keep"]
    try:
        case["given"]["keep"] = [[*kept[0][:-1], 15 - kept[0][-1]], kept[1]]
        assert min(compare("encoder_tiny_32_normalised", torch.float64, filled(case))) > 1e-4
    finally:
        case["given"]["keep"] = kept
