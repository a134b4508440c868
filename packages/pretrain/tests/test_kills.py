"""A run that is killed again and again, whenever it happens, ends like one that never was."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
import torch
from numpy.random import Generator, Philox
from safetensors.torch import load_file
from unveil_pretrain.config import config_to_json
from unveil_pretrain.resume_child import ChildRun, compute

CLOCKS = ("seconds", "device_seconds", "samples_per_second")


def start(child, *, after=None):
    """A start of the run in a process of its own, killed so many seconds after its next step; its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unveil_pretrain.resume_child"])
    process = context.Process(target=compute, args=(child,))
    process.start()
    if after is not None:
        before = child.seen.stat().st_size if child.seen.exists() else 0
        while process.is_alive() and (not child.seen.exists() or child.seen.stat().st_size == before):
            process.join(0.002)
        process.join(after)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


def rows(run, name):
    lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in lines]


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing(mae_config, shards, tmp_path):
    """Five kills (SIGKILL) at moments from a stream: three whenever it is, two while a checkpoint is written."""
    config = replace(mae_config, steps=24, warmup_steps=2, validate_every=4, checkpoint_every=4)
    straight = ChildRun(
        config=json.loads(json.dumps(config_to_json(config))),
        out=tmp_path / "straight",
        seen=tmp_path / "straight.seen.jsonl",
        train_data=shards[0],
        val_data=shards[1],
        device="cpu",
    )
    assert start(straight) == 0
    killed = replace(straight, out=tmp_path / "killed", seen=tmp_path / "killed.seen.jsonl")
    moments = Generator(Philox(key=[0, 5])).random(3) * 0.05
    codes = [start(killed, after=moments[0])]
    codes += [start(replace(killed, kill_in_checkpoint=12)), start(killed, after=moments[1])]
    codes += [start(replace(killed, kill_in_checkpoint=20)), start(killed, after=moments[2])]
    # A moment may fall behind the end of the run, but not that of the first start, nor those while saving.
    assert codes[0] == codes[1] == -signal.SIGKILL
    assert codes.count(-signal.SIGKILL) >= 3
    assert start(killed) == 0
    for name in ("encoder.safetensors", "heads.safetensors"):
        one, two = (load_file(run / "checkpoints" / "step_00000024" / name) for run in (straight.out, killed.out))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one), name
    for name in ("val.jsonl", "metrics.jsonl"):
        assert rows(killed.out, name) == rows(straight.out, name)
    assert [row["step"] for row in rows(killed.out, "val.jsonl")] == list(range(4, 25, 4))
