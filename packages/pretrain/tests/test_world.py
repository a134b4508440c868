"""Processes of a run: what torchrun says, and exact gradients through what they tell each other."""

import json

import pytest
import torch
from unveil_pretrain import ConfigError
from unveil_pretrain.world import World, joined, world_of_environment

TALK = """
import json
import sys
from unveil_pretrain.errors import DataError, OutputError
from unveil_pretrain.gradient_sums import GradientSums
from unveil_pretrain.world import joined, world_of_environment
import torch
from torch import nn

def refuse():
    raise OutputError("disk full")

world = world_of_environment()
device = torch.device("cpu")
with joined(world, device):
    torch.manual_seed(7)
    rows = torch.randn(8, 3, dtype=torch.float64)
    layer, unused = nn.Linear(3, 3).double(), nn.Linear(2, 2).double()
    both = nn.ModuleList([layer, unused])
    mine = rows[world.share(8)]
    embedded = layer(mine)
    everything = world.gather(embedded)
    # A loss that couples all samples and, as a temperature would, uses a parameter on every process.
    losses = (embedded @ everything.T).exp().sum(1).log() * layer.bias.exp().sum()
    (losses.sum() / 8).backward()
    GradientSums(world, both).finish()
    uneven = world.gather_rows(torch.arange(world.rank + 1) + 10 * world.rank)
    torch.manual_seed(world.rank)
    other = nn.Linear(2, 2)
    world.copy_from_first(other)
    world.barrier()
    refused = []
    try:
        world.agree(DataError("bad tar") if world.rank == 1 else None)
    except DataError as error:
        refused.append(str(error))
    world.agree(None)
    try:
        world.first_says(lambda: int("seven") if world.rank else refuse())
    except OutputError as error:
        refused.append(str(error))
    print(json.dumps({
        "gradients": [parameter.grad.tolist() for parameter in layer.parameters()],
        "unused": [parameter.grad is None for parameter in unused.parameters()],
        "uneven": uneven.tolist(),
        "objects": world.gather_objects({"rank": world.rank}),
        "sum": world.sum([1.5, world.rank]),
        "copied": other.weight.tolist(),
        "writes": world.writes,
        "refused": refused,
        "first": world.first_says(lambda: world.rank),
        "asked": [world.agree(None, stop=world.rank == 1), world.agree(None)],
    }))
"""


def expected_gradients():
    torch.manual_seed(7)
    rows = torch.randn(8, 3, dtype=torch.float64)
    layer = torch.nn.Linear(3, 3).double()
    embedded = layer(rows)
    losses = (embedded @ embedded.T).exp().sum(1).log() * layer.bias.exp().sum()
    losses.mean().backward()
    return [parameter.grad for parameter in layer.parameters()]


@pytest.mark.parametrize("num", [2, 4])
def test_gathered_rows_have_the_gradients_of_a_single_process(in_processes, num):
    said = [json.loads(out) for out in in_processes(num, TALK)]
    for rank, found in enumerate(said):
        for mine, wanted in zip(found["gradients"], expected_gradients(), strict=True):
            torch.testing.assert_close(torch.tensor(mine, dtype=torch.float64), wanted, rtol=1e-12, atol=1e-12)
        assert found["unused"] == [True, True]
        assert found["uneven"] == [10 * other + row for other in range(num) for row in range(other + 1)]
        assert found["objects"] == [{"rank": other} for other in range(num)]
        assert found["sum"] == [1.5 * num, num * (num - 1) / 2]
        assert found["copied"] == said[0]["copied"]
        assert found["writes"] == (rank == 0)
        assert found["refused"] == ["bad tar", "disk full"]
        assert found["first"] == 0
        assert found["asked"] == [True, False]


def test_a_single_process_has_no_world_to_talk_to():
    world = world_of_environment({})
    rows = torch.ones(2, 3, requires_grad=True)
    with joined(world, torch.device("cpu")):
        assert world.gather(rows) is rows
        assert world.gather_rows(rows) is rows
        assert world.gather_objects("word") == ["word"]
        assert world.sum([1, 2.5]) == [1.0, 2.5]
        world.barrier()
        assert not world.agree(None)
        assert world.agree(None, stop=True)
        with pytest.raises(ConfigError, match="mine"):
            world.agree(ConfigError("mine"))
        assert world.first_says(lambda: 7) == 7
        assert not torch.distributed.is_initialized()
    assert world.share(5) == slice(0, 5)


def test_the_environment_of_torchrun():
    found = world_of_environment({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "HOME": "/"})
    assert found == World(rank=3, local_rank=1, size=4)
    assert found.share(8) == slice(6, 8)
    with pytest.raises(ConfigError, match=r"batch of 6 cannot be dealt out equally to 4 processes.*multiple of 4"):
        found.share(6)


@pytest.mark.parametrize(
    "given",
    [
        {"RANK": "0"},
        {"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "2"},
        {"RANK": "a", "LOCAL_RANK": "0", "WORLD_SIZE": "2"},
    ],
)
def test_half_an_environment_is_refused(given):
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=.*torchrun"):
        world_of_environment(given)


LEFT = """
import os
import torch
from unveil_pretrain.errors import ProcessLostError
from unveil_pretrain.world import joined, world_of_environment

world = world_of_environment()
try:
    with joined(world, torch.device("cpu")):
        world.sum([1.0])
        if world.rank == 1:
            os._exit(0)
        world.sum([1.0])
except ProcessLostError as error:
    print(error)
"""


def test_a_process_that_has_gone_is_an_error_with_a_name(in_processes):
    said, nothing = in_processes(2, LEFT)
    assert "process 0 of 2 has no connection, or no longer, to another one" in said
    assert "--max-restarts" in said
    assert nothing == ""
