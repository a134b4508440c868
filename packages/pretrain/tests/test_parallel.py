"""Shards of one copy of the weights: what a process holds, gathering for validation, clipping, compiled blocks."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from unveil_pretrain.config import config_to_json
from unveil_pretrain.parallel import clip_gradients, gathered, is_sharded, sync_gradients

SHARDS = """
import json, sys, torch
from torch.distributed.tensor import DTensor
from unveil_backbones import create
from unveil_pretrain.gradient_sums import GradientSums
from unveil_pretrain.inputs import Inputs
from unveil_pretrain.objectives.base import BuildContext
from unveil_pretrain.objectives.mae import MAEConfig
from unveil_pretrain.parallel import Parallel, clip_gradients, gathered, shard
from unveil_pretrain.world import joined, world_of_environment

world, cpu = world_of_environment(), torch.device("cpu")
torch.manual_seed(0)
config = MAEConfig(decoder_width=16, decoder_depth=1, decoder_heads=2)
encoder = create("vit_tiny", image_size=(32, 32))
objective = config.build(BuildContext(encoder, (32, 32), captions=lambda most: [], tokenizer_json=None)).train()
objective.scale = torch.nn.Parameter(torch.tensor(2.0))
images, ids = torch.randn(4, 3, 32, 32), torch.arange(4)
inputs = Inputs(images, ids, ids * 0, None)

def total():
    return sum(one.numel() for one in objective.parameters())

def held():
    return sum(one.to_local().numel() if isinstance(one, DTensor) else one.numel() for one in objective.parameters())

def loss():
    return (objective(inputs, seed=0).per_sample * objective.scale).sum()

with torch.no_grad():
    whole_loss, whole = loss().item(), total()
loss().backward()
norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), 0.5).item()
clipped = {name: one.grad.clone() for name, one in objective.named_parameters()}
objective.zero_grad()
with joined(world, cpu):
    shard(objective, Parallel(kind="fsdp"), world, cpu, bfloat16=False)
    mine = held()
    with gathered(objective), torch.no_grad():
        in_between = held()
        # Processes call the model unequally often: a collective in it would wait for ever.
        losses = [objective.score_samples(inputs, seed=0, chunk_size=2).losses["loss"] for _ in range(1 + world.rank)]
    after = held()
    (loss() / world.size).backward()
    GradientSums(world, objective).finish()
    same_norm = clip_gradients(objective.parameters(), 0.5)
    apart = max(
        float(((one.grad.full_tensor() if isinstance(one.grad, DTensor) else one.grad) - clipped[name]).abs().max())
        for name, one in objective.named_parameters()
    )
    print(json.dumps({
        "whole": whole, "mine": mine, "in_between": in_between, "after": after, "scalar": objective.scale.dim(),
        "loss": [2.0 * float(one.sum()) for one in losses], "whole_loss": whole_loss,
        "norm": norm, "same_norm": same_norm, "apart": apart,
    }))
"""

RUN = """
import json, sys
from pathlib import Path
from unveil_pretrain import train
from unveil_pretrain.parallel import Parallel
from unveil_pretrain.stored_config import config_from_json

out, train_data, val_data, config, kind, compiled = sys.argv[1:]
train(
    config_from_json(json.loads(config)), out=Path(out), train_data=train_data, val_data=val_data, device="cpu",
    parallel=Parallel(kind=kind), compile_blocks=compiled == "compiled", checkpoint_blocks=compiled == "checkpointed",
    progress=False, log=lambda line: None, loggers=(),
)
print(Path(out, "metrics.jsonl").read_text())
print(Path(out, "val.jsonl").read_text())
"""


@pytest.fixture
def losses_of(in_processes, tmp_path, shards):
    def run(num, config, kind, how="plain"):
        out = tmp_path / f"{kind}_{how}_{config.precision}_{num}"
        said = in_processes(num, RUN, out, *shards, json.dumps(config_to_json(config)), kind, how)
        return torch.tensor([json.loads(line)["loss"] for line in said[0].splitlines() if line])

    return run


def test_a_process_holds_its_part_and_gathers_it_for_validation(in_processes):
    said = [json.loads(out) for out in in_processes(2, SHARDS)]
    for one in said:
        assert one["scalar"] == 0
        # Halves of every parameter, cut at whole rows.
        assert 0.98 < one["mine"] / one["whole"] * 2 < 1.02
        assert one["in_between"] == one["whole"]
        assert one["after"] == one["mine"]
        assert one["loss"] == pytest.approx([one["whole_loss"]] * len(one["loss"]), rel=1e-5)
        assert one["same_norm"] == pytest.approx(one["norm"], rel=1e-5)
        assert one["apart"] < 1e-6
    assert said[0]["mine"] + said[1]["mine"] == said[0]["whole"] + 1  # the scalar is on both


def test_whole_weights_are_left_alone():
    model = nn.Linear(3, 2)
    assert not is_sharded(model)
    sync_gradients(model, wanted=False)
    before = list(model.parameters())
    with gathered(model):
        assert all(one is other for one, other in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("largest", [0.1, 100.0])
def test_clipping_whole_gradients_is_torchs(largest):
    torch.manual_seed(0)
    models = [nn.Linear(5, 4), nn.Linear(5, 4)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        model(torch.arange(10.0).view(2, 5)).square().sum().backward()
    expected = float(nn.utils.clip_grad_norm_(models[0].parameters(), largest))
    assert clip_gradients(models[1].parameters(), largest) == expected
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.slow
def test_blocks_are_checkpointed_or_compiled_inside_of_shards(losses_of, mae_config):
    """Compiled code may round otherwise: 1e-4; checkpointing only computes again: 1e-5."""
    config = replace(mae_config, batch_size=8, steps=2, validate_every=2)
    plain = losses_of(1, config, "ddp")
    torch.testing.assert_close(losses_of(2, config, "fsdp", "checkpointed"), plain, rtol=1e-5, atol=0)
    torch.testing.assert_close(losses_of(2, config, "fsdp", "compiled"), plain, rtol=1e-4, atol=0)


@pytest.mark.slow
def test_bfloat16_gathers_blocks_in_two_bytes_and_stays_near(losses_of, mae_config):
    """Norms of blocks have weights of two bytes in shards and of four in copies; losses agree to 0.4 %."""
    config = replace(mae_config, batch_size=8, steps=3, validate_every=3, precision="bfloat16")
    copies, parts = losses_of(2, config, "ddp"), losses_of(2, config, "fsdp")
    torch.testing.assert_close(parts, copies, rtol=4e-3, atol=0)
    assert not torch.equal(parts, copies)
