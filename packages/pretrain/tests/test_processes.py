"""The same run over one and two processes: the same samples per step, the same losses, one set of files."""

import json
from dataclasses import replace

import pytest
from unveil_backbones import load
from unveil_pretrain import ConfigError, train
from unveil_pretrain.config import config_to_json

RUN = """
import json, sys
from pathlib import Path
from unveil_pretrain import loop
from unveil_pretrain.stored_config import config_from_json

out, train_data, val_data, config, micro = sys.argv[1:]
update, seen = loop.train_step, []

def watched(run, position, batch):
    seen.append([batch.sample_ids.tolist(), batch.epochs.tolist()])
    return update(run, position, batch)

loop.train_step = watched
loop.train(
    config_from_json(json.loads(config)), out=Path(out), train_data=train_data, val_data=val_data, device="cpu",
    micro_batch_size=int(micro), progress=False, log=lambda line: print("said: " + line), loggers=(),
)
print(json.dumps(seen))
"""


@pytest.fixture
def over_processes(in_processes, tmp_path, shards):
    def run(num, config, name, micro=0):
        said = in_processes(num, RUN, tmp_path / name, *shards, json.dumps(config_to_json(config)), micro)
        seen = [json.loads(out.splitlines()[-1]) for out in said]
        steps = [
            [[one for of_rank in seen for one in of_rank[step][part]] for part in (0, 1)]
            for step in range(len(seen[0]))
        ]
        logs = [[line for line in out.splitlines() if line.startswith("said: ")] for out in said]
        return tmp_path / name, steps, logs

    return run


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_one_and_two_processes_train_alike(over_processes, simmim_config):
    """Losses to 1e-5 relative: sums of float32 are rounded in another order, and six updates pass it on."""
    config = replace(simmim_config, batch_size=6, steps=4, checkpoint_every=2)
    one, steps_of_one, _ = over_processes(1, config, "one")
    two, steps_of_two, logs = over_processes(2, config, "two", micro=2)
    assert steps_of_two == steps_of_one
    assert len({tuple(ids) for ids, _ in steps_of_one}) == 4
    for left, right in zip(rows(one / "metrics.jsonl"), rows(two / "metrics.jsonl"), strict=True):
        assert right["loss"] == pytest.approx(left["loss"], rel=1e-5)
        assert right["grad_norm"] == pytest.approx(left["grad_norm"], rel=1e-4)
        same = ("step", "samples_seen", "epoch", "lr", "tokens_seen")
        assert {name: right[name] for name in same} == {name: left[name] for name in same}
    for left, right in zip(rows(one / "val.jsonl"), rows(two / "val.jsonl"), strict=True):
        assert right["loss"] == pytest.approx(left["loss"], rel=1e-5)
        assert right["num_images"] == left["num_images"]
    assert any("effective batch 6 (2 processes × 2 micro-batches of 2)" in line for line in logs[0])
    assert logs[1] == []
    manifest = load(two / "checkpoints" / "step_00000004").manifest
    assert manifest.samples_seen == 24
    assert manifest.device_seconds == pytest.approx(2 * rows(two / "metrics.jsonl")[-1]["seconds"])


def test_a_batch_that_cannot_be_dealt_out_is_refused(simmim_config, tmp_path, shards, monkeypatch):
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("unveil_pretrain.world._fresh_store", lambda world: None)
    monkeypatch.setattr("unveil_pretrain.world.dist.init_process_group", lambda *_, **__: None)
    monkeypatch.setattr("unveil_pretrain.world.dist.destroy_process_group", lambda: None)
    monkeypatch.setattr("unveil_pretrain.world.World.first_says", lambda self, make: make())
    with pytest.raises(ConfigError, match=r"batch of 5 cannot be dealt out equally to 2 processes"):
        train(simmim_config, out=tmp_path / "run", train_data=shards[0], val_data=shards[1], device="cpu",
              progress=False, log=lambda _: None)  # fmt: skip
