"""Golden loss curves: one process, several with whole copies of the weights, and several with shards of one copy.

Relative tolerances: 1e-4 against the file, since other processors add float32 numbers in another order and eight
updates pass it on; 2e-5 between numbers of processes on one machine.
"""

import copy
import json
from pathlib import Path

import loss_curves
import pytest
from unveil_pretrain.config import config_to_json, first_difference
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.parallel import Parallel
from unveil_pretrain.world import World

AGAINST_FILE = 1e-4
AGAINST_ONE = 2e-5
NAMES = list(loss_curves.configs())


@pytest.fixture(scope="module")
def golden():
    return json.loads(loss_curves.GOLDEN.read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    data = loss_curves.write_data(folder)
    return loss_curves.compute(folder / "runs", data, NAMES, parallel=Parallel(), micro_batch_size=0)


@pytest.fixture
def over(in_processes, tmp_path):
    """Curves that every process of a run reports, which have to be the same."""

    def run(num, *, shards=0, micro=0, names=NAMES):
        loss_curves.write_data(tmp_path)
        script = str(Path(loss_curves.__file__))
        said = in_processes(num, script, "--folder", tmp_path, "--shards", shards, "--micro", micro, *names)
        assert len(set(said)) == 1
        return json.loads(said[0])

    return run


def apart(found, reference):
    return {name: loss_curves.distance(found[name], reference[name]) for name in found}


def test_the_file_is_of_these_settings(golden):
    assert list(golden) == NAMES
    for name, config in loss_curves.configs().items():
        assert first_difference(json.loads(json.dumps(config_to_json(config))), golden[name]["config"]) is None
        assert len(golden[name]["curves"]["loss"]) == config.steps


def test_one_process_gives_the_golden_curves(golden, alone):
    assert max(apart(alone, {name: golden[name]["curves"] for name in NAMES}).values()) < AGAINST_FILE


def test_a_run_in_micro_batches_gives_them_too(golden, tmp_path):
    data = loss_curves.write_data(tmp_path)
    found = loss_curves.compute(tmp_path / "runs", data, ["flip"], parallel=Parallel(), micro_batch_size=3)
    assert apart(found, {"flip": golden["flip"]["curves"]})["flip"] < AGAINST_FILE


@pytest.mark.parametrize("shards", [0, 2])
def test_two_processes(over, alone, shards):
    assert max(apart(over(2, shards=shards), alone).values()) < AGAINST_ONE


@pytest.mark.slow
@pytest.mark.parametrize(("shards", "micro"), [(0, 1), (4, 0), (2, 1), (1, 0)])
def test_four_processes(over, alone, shards, micro):
    assert max(apart(over(4, shards=shards, micro=micro), alone).values()) < AGAINST_ONE


def test_another_seed_or_one_step_less_would_be_seen(golden):
    curves = golden["mae"]["curves"]
    shorter = {name: values[:-1] for name, values in curves.items()}
    moved = copy.deepcopy(curves)
    moved["loss"][3] *= 1 + 2 * AGAINST_FILE
    assert loss_curves.distance(curves, curves) == 0.0
    assert loss_curves.distance(shorter, curves) == float("inf")
    assert loss_curves.distance(moved, curves) > AGAINST_FILE
    assert loss_curves.distance(golden["ijepa"]["curves"], curves) > 0.1


def test_processes_that_cannot_be_grouped_are_refused():
    assert Parallel(kind="fsdp").num_shards(World(size=4)) == 4
    assert Parallel(kind="fsdp", shard_over=2).num_shards(World(size=4)) == 2
    assert Parallel(kind="ddp", shard_over=3).num_shards(World(size=4)) == 1
    with pytest.raises(ConfigError, match="shard_over is 3 and there are 4 processes; give a divisor"):
        Parallel(kind="fsdp", shard_over=3).num_shards(World(size=4))
    with pytest.raises(ConfigError, match="shard_over is -1"):
        Parallel(kind="fsdp", shard_over=-1).num_shards(World(size=4))
