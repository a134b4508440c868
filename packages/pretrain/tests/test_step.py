"""Gradients do not depend on how a batch is cut: by micro-batches, by GradCache, over processes."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from unveil_backbones import create
from unveil_pretrain import ConfigError
from unveil_pretrain.data import Batch
from unveil_pretrain.objectives.base import Inputs
from unveil_pretrain.step import rows_of
from unveil_pretrain.stochastic_depth import SampleDropPath, StochasticDepth

SCRIPT = Path(__file__).parent / "processes" / "gradients.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gradients", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def plain(script):
    """Losses and gradients of the plain step: forward() over the whole batch, mean, backward()."""
    found = {}
    for kind in script.KINDS:
        objective, batch = script.build(kind)
        inputs = script.normalise(batch)
        StochasticDepth.install(objective).choose(inputs, seed=5)
        losses = objective(inputs, seed=5).per_sample
        losses.mean().backward()
        gradients = {name: one.grad for name, one in objective.named_parameters() if one.grad is not None}
        found[kind] = (losses.detach(), gradients)
    return found


def assert_equal(mine, wanted):
    """To 1e-6 of each tensor's largest gradient; parts of the losses are computed in float32, the rest in float64."""
    assert mine.keys() == wanted.keys()
    for name, gradient in wanted.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(mine[name] / scale, gradient / scale, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("checkpoint_blocks", [False, True])
@pytest.mark.parametrize("micro", [0, 3, 1])
@pytest.mark.parametrize("kind", ["mae", "simmim", "coupled"])
def test_micro_batches_have_the_gradients_of_the_plain_step(script, plain, kind, micro, checkpoint_blocks):
    losses, gradients = script.gradients(kind, micro, checkpoint_blocks=checkpoint_blocks)
    torch.testing.assert_close(losses.per_sample, plain[kind][0], rtol=1e-6, atol=1e-6)
    assert_equal(gradients, plain[kind][1])


# Shards: one copy cut in two, and two copies of two halves; micro-batches also with activation checkpointing.
@pytest.mark.parametrize(("num", "micro", "shards"), [(2, 3, 0), (4, 0, 0), (2, 0, 2), (4, 1, 2)])
def test_processes_have_the_gradients_of_the_plain_step(script, plain, in_processes, tmp_path, num, micro, shards):
    said = in_processes(num, str(SCRIPT), tmp_path / "found.x", micro, shards, *script.KINDS)
    for number, kind in enumerate(script.KINDS):
        losses = torch.tensor([value for out in said for value in json.loads(out.splitlines()[number])])
        torch.testing.assert_close(losses, plain[kind][0].float(), rtol=1e-6, atol=1e-6)
        assert_equal(load_file(tmp_path / f"found.{kind}"), plain[kind][1])


def test_the_comparison_can_fail(script, plain):
    """One sample in another epoch: another mask, other drops."""
    objective, batch = script.build("mae")
    inputs = script.normalise(Batch(batch.images, batch.sample_ids, batch.epochs * 0, None))
    StochasticDepth.install(objective).choose(inputs, seed=5)
    objective(inputs, seed=5).per_sample.mean().backward()
    with pytest.raises(AssertionError):
        assert_equal({name: one.grad for name, one in objective.named_parameters() if one.grad is not None},
                     plain["mae"][1])  # fmt: skip


def inputs_of(ids, epochs=None):
    ids = torch.tensor(ids)
    return Inputs(torch.zeros(len(ids), 3, 8, 8), ids, torch.zeros_like(ids) if epochs is None else epochs, None)


def branch_pattern(ids, *, seed=1, epochs=None, probability=0.5):
    model = nn.ModuleList([SampleDropPath(probability) for _ in range(6)])
    depth = StochasticDepth(tuple(model))
    depth.choose(inputs_of(ids, epochs), seed=seed)
    return torch.stack([branch(torch.ones(len(ids), 2, 3))[:, 0, 0] for branch in model])


def test_drops_belong_to_the_sample_not_to_the_batch():
    whole = branch_pattern([4, 9, 2, 7])
    assert torch.equal(branch_pattern([7, 4]), whole[:, [3, 0]])
    assert set(whole.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(branch_pattern([4, 9, 2, 7], seed=2), whole)
    assert not torch.equal(branch_pattern([4, 9, 2, 7], epochs=torch.ones(4, dtype=torch.int64)), whole)


def test_drops_have_their_probability_and_keep_the_mean():
    pattern = branch_pattern(list(range(4000)), probability=0.3)
    # 24000 draws: five standard errors of the share are 0.015, of the mean 0.021.
    assert abs(float((pattern == 0).double().mean()) - 0.3) < 0.015
    assert abs(float(pattern.mean()) - 1.0) < 0.022
    correlation = torch.corrcoef((pattern == 0).double())
    assert (correlation - torch.eye(6)).abs().max() < 0.1


def test_views_of_a_batch_share_the_drops_of_their_sample():
    branch = SampleDropPath(0.5)
    StochasticDepth((branch,)).choose(inputs_of([1, 2, 3]), seed=0)
    rows = branch(torch.ones(6, 1))
    assert torch.equal(rows[:3], rows[3:])


def test_evaluation_drops_nothing_and_strangers_are_refused():
    branch = SampleDropPath(0.5)
    with pytest.raises(ConfigError, match="knows 0 samples"):
        branch(torch.ones(4, 1))
    StochasticDepth((branch,)).choose(inputs_of([1, 2, 3]), seed=0)
    with pytest.raises(ConfigError, match="4 rows and knows 3 samples"):
        branch(torch.ones(4, 1))
    assert torch.equal(branch.eval()(torch.ones(4, 1)), torch.ones(4, 1))


@pytest.mark.parametrize("name", ["vit_tiny", "swinv2_tiny", "hiera_tiny"])
def test_all_drops_of_an_encoder_are_replaced_and_no_weight_changes(name):
    encoder = create(name, image_size=(64, 64), drop_path=0.4)
    before = set(encoder.state_dict())
    depth = StochasticDepth.install(encoder)
    assert set(encoder.state_dict()) == before
    assert max(branch.probability for branch in depth.branches) == pytest.approx(0.4)
    assert not any(type(module).__name__ == "DropPath" for module in encoder.modules())
    depth.choose(inputs_of([1, 2]), seed=0)
    assert encoder.train()(torch.randn(2, 3, 64, 64)).isfinite().all()


def test_dropout_of_single_values_is_refused():
    with pytest.raises(ConfigError, match=r"head\.1 drops single values"):
        StochasticDepth.install(nn.ModuleDict({"head": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))}))
    StochasticDepth.install(nn.Sequential(nn.Dropout(0.0)))


def test_rows_of_a_batch():
    batch = Batch(torch.arange(4)[:, None, None, None].expand(4, 3, 2, 2).to(torch.uint8), torch.arange(4),
                  torch.arange(4) + 9, list("abcd"))  # fmt: skip
    part = rows_of(batch, slice(1, 3))
    assert (part.sample_ids.tolist(), part.epochs.tolist(), part.captions) == ([1, 2], [10, 11], ["b", "c"])
    assert part.images[:, 0, 0, 0].tolist() == [1, 2]
