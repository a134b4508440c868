"""Losses of SimMIM, MAE and FLIP against numbers recorded from the references (docs/numerical-truth.md).

Weights, images and masks are those of the recordings in the backbones package; the losses themselves run in float32.
"""

import re
from functools import cache, partial
from pathlib import Path

import golden_numbers as numbers
import pytest
import torch
from unveil_backbones import SwinConfig, SwinEncoder, VitConfig, VitEncoder
from unveil_backbones.swin import clamped_windows
from unveil_masking import Grid, RandomMask, UnitMask
from unveil_masking.partition import partition_from_mask
from unveil_pretrain.contrastive import info_nce
from unveil_pretrain.objectives.base import Inputs
from unveil_pretrain.objectives.mae import MAE, MAEDecoder
from unveil_pretrain.objectives.simmim import SimMIM
from unveil_pretrain.targets import normalise_by_window

GOLDEN = Path(__file__).parents[2] / "backbones" / "tests" / "golden"
SIMMIM = ["simmim_tiny_raw", "simmim_tiny_47", "simmim_192_47"]
SIMMIM_VIT = ["simmim_vit_64", "simmim_vit_224"]
MAES = ["loss_tiny_32_raw", "loss_tiny_32_normalised", "loss_narrow_224"]


@cache
def golden(family):
    return numbers.read_golden(GOLDEN / f"{family}.json")["cases"]


class GivenMask:
    """Hides the tokens that a recording hid."""

    def sample(self, grid: Grid, ids, *, seed, epoch):
        del ids, seed, epoch
        return partition_from_mask(self.mask, int((~self.mask[0]).sum()), grid)


class GivenUnits(GivenMask, UnitMask):
    """Hides units."""


class GivenKeep(GivenMask, RandomMask):
    """Hides tokens."""


def batch(case):
    made = numbers.pictures if "hidden_units" in case["given"] else partial(numbers.noise, "images")
    images = made(case["given"]["images"]).float()
    return Inputs(images, torch.arange(len(images)), torch.zeros(len(images), dtype=torch.int64), None)


def simmim(case):
    """SimMIM on the recorded weights, names as the reference has them, and the recorded mask."""
    settings = case["settings"]
    size, windows = tuple(settings["img_size"]), (settings["window_size"],) * 4
    encoder = SwinEncoder(
        SwinConfig(
            image_size=size,
            width=settings["embed_dim"],
            depths=tuple(settings["depths"]),
            num_heads=tuple(settings["num_heads"]),
            window_sizes=windows,
            pretrained_window_sizes=clamped_windows(size, 4, windows),
        )
    )
    strategy = GivenUnits(settings["unit"], 0.6)
    units = torch.tensor(case["given"]["hidden_units"], dtype=torch.bool)
    tokens = units.repeat_interleave(settings["unit"], 1).repeat_interleave(settings["unit"], 2)
    object.__setattr__(strategy, "mask", tokens.flatten(1))
    objective = SimMIM(encoder, strategy, size, target_window=settings["target_window"])

    def theirs(name):
        moved = re.sub(r"layers\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample", name)
        return moved.replace("head.", "decoder.0.").replace("mask_token", "encoder.mask_token")

    return fill(objective, case, theirs), theirs


def simmim_vit(case):
    """SimMIM on a ViT with the reference's learned positions, class token's included."""
    settings = case["settings"]
    size, patch = (settings["img_size"],) * 2, settings["patch_size"]
    encoder = VitEncoder(
        VitConfig(
            image_size=size,
            patch_size=patch,
            width=settings["embed_dim"],
            depth=settings["depth"],
            num_heads=settings["num_heads"],
            position="learned",
            class_position=True,
            qkv_bias=False,
        )
    )
    strategy = GivenUnits(settings["unit"], 0.6)
    units = torch.tensor(case["given"]["hidden_units"], dtype=torch.bool)
    tokens = units.repeat_interleave(settings["unit"], 1).repeat_interleave(settings["unit"], 2)
    object.__setattr__(strategy, "mask", tokens.flatten(1))
    objective = SimMIM(encoder, strategy, size, target_window=0)

    def theirs(name):
        return name.replace("head.", "decoder.0.").replace("mask_token", "encoder.mask_token")

    return fill(objective, case, theirs), theirs


def mae(case):
    settings = case["settings"]
    side = settings["img_size"]
    encoder = VitEncoder(
        VitConfig(
            image_size=(side, side),
            patch_size=settings["patch_size"],
            width=settings["embed_dim"],
            depth=settings["depth"],
            num_heads=settings["num_heads"],
        )
    )
    decoder = MAEDecoder(
        settings["embed_dim"],
        width=settings["decoder_embed_dim"],
        depth=settings["decoder_depth"],
        heads=settings["decoder_num_heads"],
        num_outputs=settings["patch_size"] ** 2 * 3,
    )
    strategy = GivenKeep(0.75)
    keep = torch.tensor(case["given"]["keep"])
    mask = torch.ones(len(keep), (side // settings["patch_size"]) ** 2, dtype=torch.bool).scatter(1, keep, False)
    object.__setattr__(strategy, "mask", mask)
    objective = MAE(encoder, decoder, strategy, (side, side), normalise_target=settings["norm_pix_loss"])
    renamed = {
        "decoder.project": "decoder_embed",
        "decoder.predict": "decoder_pred",
        "decoder.mask_token": "mask_token",
    }

    def theirs(name):
        for ours, other in renamed.items():
            name = name.replace(ours, other)
        return re.sub(r"^decoder\.", "decoder_", name.removeprefix("encoder."))

    return fill(objective, case, theirs), theirs


def fill(objective, case, theirs):
    state = numbers.weights(case["shapes"])
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            parameter.copy_(state.pop(theirs(name)).view_as(parameter))
    assert not state
    return objective


def run(case, objective, theirs):
    """Loss, and gradients under the reference's names and in its shapes."""
    objective.zero_grad()
    loss = objective(batch(case), seed=0).per_sample.mean()
    loss.backward()
    found = {theirs(name): parameter.grad for name, parameter in objective.named_parameters()}
    gradients = {name: value.reshape(case["shapes"][name]) for name, value in found.items()}
    return loss.item(), numbers.gradient_difference(gradients, case["gradients"])


def check(family, name, built):
    case = golden(family)[name]
    loss, backward = run(case, *built)
    print(
        f"golden: {family} {name} torch.float32 loss {abs(loss - case['losses']['loss']):.1e} backward {backward:.1e}"
    )
    assert loss == pytest.approx(case["losses"]["loss"], rel=1e-5)
    assert backward <= numbers.bound(case, "backward", torch.float32)


@pytest.mark.parametrize("name", SIMMIM)
def test_simmims_loss_and_gradients_are_the_references(name):
    check("swinv2", name, simmim(golden("swinv2")[name]))


@pytest.mark.parametrize("name", SIMMIM_VIT)
@pytest.mark.parametrize("optimised", [True, False])
def test_simmims_loss_and_gradients_on_a_vit_are_the_references(name, optimised):
    objective, theirs = simmim_vit(golden("simmim_vit")[name])
    objective.set_optimisations(objective.OPTIMISATIONS if optimised else ())
    check("simmim_vit", name, (objective, theirs))


@pytest.mark.parametrize("name", MAES)
@pytest.mark.parametrize("permuted", [True, False])
def test_maes_loss_and_gradients_are_the_references(name, permuted):
    objective, theirs = mae(golden("mae")[name])
    objective.permuted_decoder = permuted
    check("mae", name, (objective, theirs))


@pytest.mark.slow
def test_maes_loss_and_gradients_are_the_references_at_full_size():
    check("mae", "loss_base_224", mae(golden("mae")["loss_base_224"]))


@pytest.mark.parametrize("name", ["simmim_tiny_47", "simmim_192_47"])
def test_the_target_normalised_by_47_pixels_is_the_references(name):
    case = golden("swinv2")[name]
    found = normalise_by_window(numbers.pictures(case["given"]["images"]), 47)
    difference = numbers.output_difference("target", found, case["outputs"]["target"])
    print(f"golden: swinv2 target {name} torch.float64 forward {difference:.1e}")
    assert difference <= 1e-10


def test_info_nce_and_its_gradients_are_open_clips():
    case = golden("open_clip")["loss_of_vectors"]
    state = {name: value.requires_grad_() for name, value in numbers.weights(case["shapes"]).items()}
    image, text = (torch.nn.functional.normalize(state[part], dim=1) for part in ("image", "text"))
    loss = info_nce(image, text, state["logit_scale"].exp()).mean()
    loss.backward()
    backward = numbers.gradient_difference({name: value.grad for name, value in state.items()}, case["gradients"])
    difference = abs(loss.item() - case["losses"]["loss"])
    print(f"golden: open_clip loss_of_vectors torch.float32 loss {difference:.1e} backward {backward:.1e}")
    assert difference <= 1e-6
    assert backward <= 1e-5


@pytest.mark.parametrize("part", ["mask_token", "head.bias", "encoder.layers.2.downsample.reduction.weight"])
def test_a_small_change_of_a_weight_is_noticed(part):
    case = golden("swinv2")["simmim_tiny_47"]
    objective, theirs = simmim(case)
    parameter = dict(objective.named_parameters())[part]
    with torch.no_grad():
        parameter += 1e-2 * numbers.noise("change", parameter.shape).float()
    loss, backward = run(case, objective, theirs)
    assert abs(loss / case["losses"]["loss"] - 1) > 1e-6 or backward > 1e-3


@pytest.mark.parametrize("window", [0, 45, 49])
def test_another_target_is_noticed(window):
    case = golden("swinv2")["simmim_tiny_47"]
    objective, theirs = simmim(case)
    objective.target_window = window
    assert abs(run(case, objective, theirs)[0] / case["losses"]["loss"] - 1) > 1e-4
