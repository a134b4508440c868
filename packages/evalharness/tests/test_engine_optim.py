"""Layer decay, weight decay and the schedule against values worked out by hand."""

import math

import pytest
import torch
from torch import nn
from unveil_evalharness.engine.optim import OptimiserSettings, build_optimiser, parameter_groups, schedule
from unveil_evalharness.errors import ProtocolError


class Encoder(nn.Module):
    """Patch embedding, two blocks, a final norm: four layer groups."""

    def __init__(self, groups=None):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(4, 2))
        self.embed = nn.Linear(3, 2)
        self.block0 = nn.Linear(2, 2)
        self.block1 = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.groups = groups or [
            ["position", "embed.weight", "embed.bias"],
            ["block0.weight", "block0.bias"],
            ["block1.weight", "block1.bias"],
            ["norm.weight", "norm.bias"],
        ]

    def layer_groups(self):
        return self.groups

    def no_weight_decay(self):
        return frozenset({"position"})


class Model(nn.Module):
    def __init__(self, encoder=None):
        super().__init__()
        self.encoder = encoder or Encoder()
        self.head = nn.Linear(2, 5)


def settings_of(model, **values):
    """name -> (lr, weight decay) of every parameter."""
    groups = parameter_groups(model, model.encoder, **values)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_layers_decay_from_the_final_norm_down_and_heads_keep_the_full_rate():
    assert settings_of(Model(), lr=1.0, weight_decay=0.1, layer_decay=0.5) == {
        "encoder.position": (0.125, 0.0),
        "encoder.embed.weight": (0.125, 0.1),
        "encoder.embed.bias": (0.125, 0.0),
        "encoder.block0.weight": (0.25, 0.1),
        "encoder.block0.bias": (0.25, 0.0),
        "encoder.block1.weight": (0.5, 0.1),
        "encoder.block1.bias": (0.5, 0.0),
        "encoder.norm.weight": (1.0, 0.0),
        "encoder.norm.bias": (1.0, 0.0),
        "head.weight": (1.0, 0.1),
        "head.bias": (1.0, 0.0),
    }


def test_frozen_parameters_are_left_out():
    model = Model()
    model.encoder.block0.requires_grad_(False)
    assert "encoder.block0.weight" not in settings_of(model, lr=1.0, weight_decay=0.1, layer_decay=0.5)


def test_a_parameter_outside_all_groups_is_named():
    encoder = Encoder([["position", "embed.weight", "embed.bias"], ["block0.weight", "block0.bias"]])
    with pytest.raises(ProtocolError, match=r"not listed: \['block1.bias'"):
        parameter_groups(Model(encoder), encoder, lr=1.0, weight_decay=0.1, layer_decay=0.5)


def test_a_group_that_names_no_parameter_is_named():
    encoder = Encoder()
    encoder.groups[0].append("mask_token")
    with pytest.raises(ProtocolError, match=r"listed but not there: \['mask_token'\]"):
        parameter_groups(Model(encoder), encoder, lr=1.0, weight_decay=0.1, layer_decay=0.5)


def test_a_parameter_in_two_groups_is_named():
    encoder = Encoder()
    encoder.groups[0].append("norm.bias")
    with pytest.raises(ProtocolError, match=r"lists 'norm\.bias' twice"):
        parameter_groups(Model(encoder), encoder, lr=1.0, weight_decay=0.1, layer_decay=0.5)


def test_an_encoder_that_is_not_inside_the_model_is_refused():
    with pytest.raises(ProtocolError, match="not in the task's model"):
        parameter_groups(Model(), Encoder(), lr=1.0, weight_decay=0.1, layer_decay=0.5)


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"layer_decay": 0.0}, {"layer_decay": 1.1}, {"warmup_iters": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ProtocolError, match="lr > 0"):
        OptimiserSettings(**({"lr": 1.0} | wrong))


def test_a_warm_up_as_long_as_the_training_is_refused():
    with pytest.raises(ProtocolError, match="warmup_iters=10 must be below max_iters=10"):
        schedule(OptimiserSettings(lr=1.0, warmup_iters=10), max_iters=10)


def rates(settings, max_iters):
    """The learning rates of heads and first layer at every step, by mmengine's own schedulers."""
    pytest.importorskip("mmengine")
    from unveil_evalharness import compat

    compat.install()
    from mmengine.registry import PARAM_SCHEDULERS

    model = Model()
    optimiser = build_optimiser(model, model.encoder, settings)
    configs = schedule(settings, max_iters=max_iters)
    schedulers = [PARAM_SCHEDULERS.build(dict(config), default_args={"optimizer": optimiser}) for config in configs]
    seen = []
    for _ in range(max_iters):
        seen.append((optimiser.param_groups[-1]["lr"], optimiser.param_groups[0]["lr"]))
        optimiser.step()
        for scheduler in schedulers:
            scheduler.step()
    return seen


@pytest.mark.mm
def test_the_rate_rises_linearly_and_falls_as_a_cosine():
    warmup, total = 4, 20
    settings = OptimiserSettings(lr=2.0, warmup_iters=4, warmup_start=0.1, final_lr=0.01, layer_decay=0.5)
    for step, (head, first) in enumerate(rates(settings, 20)):
        if step < warmup:
            factor = 0.1 + 0.9 * step / warmup
        else:
            factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        assert head == pytest.approx(2.0 * factor, rel=1e-9)
        assert first == pytest.approx(2.0 * 0.5**3 * factor, rel=1e-9)


@pytest.mark.mm
def test_without_warm_up_the_first_step_has_the_full_rate():
    assert rates(OptimiserSettings(lr=2.0), 5)[0][0] == 2.0


@pytest.mark.mm
def test_the_rate_falls_along_a_line():
    warmup, total = 4, 20
    settings = OptimiserSettings(lr=2.0, warmup_iters=4, warmup_start=0.1, decay="linear", layer_decay=0.5)
    for step, (head, first) in enumerate(rates(settings, 20)):
        factor = 0.1 + 0.9 * step / warmup if step < warmup else (total - step) / (total - warmup)
        assert head == pytest.approx(2.0 * factor, rel=1e-9)
        assert first == pytest.approx(2.0 * 0.5**3 * factor, rel=1e-9)


@pytest.mark.mm
def test_the_rate_falls_to_a_tenth_at_each_milestone():
    settings = OptimiserSettings(lr=2.0, warmup_iters=4, warmup_start=0.1, decay="steps", milestones=(10, 15))
    for step, (head, _) in enumerate(rates(settings, 20)):
        factor = 0.1 + 0.9 * step / 4 if step < 4 else 0.1 ** ((step >= 10) + (step >= 15))
        assert head == pytest.approx(2.0 * factor, rel=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"decay": "steps"},
        {"milestones": (3,)},
        {"decay": "steps", "milestones": (5, 3)},
        {"decay": "steps", "milestones": (0, 3)},
    ],
)
def test_milestones_belong_to_steps_and_ascend(wrong):
    with pytest.raises(ProtocolError, match="needs ascending milestones"):
        OptimiserSettings(lr=1.0, **wrong)
