"""torchrun restarts a run whose process was killed; it ends like one that nothing happened to."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from torchrun_runs import PATIENCE, children, pretrain, rows, torchrun, wait_for

SCHEDULE = ("--steps", "8", "--checkpoint-every", "2", "--validate-every", "4")
LAUNCH = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "2")


def same_run(one, two):
    clocks = {"seconds", "samples_per_second"}
    left, right = ([{k: v for k, v in row.items() if k not in clocks} for row in rows(run)] for run in (one, two))
    assert left == right
    assert rows(one, "val.jsonl") == rows(two, "val.jsonl")
    for name in ("encoder.safetensors", "heads.safetensors"):
        ends = [load_file(run / "checkpoints" / "step_00000008" / name) for run in (one, two)]
        assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [("--parallel", "ddp"), ("--parallel", "fsdp", "--checkpoint-format", "sharded", "--async-checkpoints")],
    ids=["ddp", "fsdp"],
)
def test_a_killed_process_is_restarted_and_the_run_ends_with_the_same_bits(more, tmp_path, shards):
    run, killed = tmp_path / "undisturbed", tmp_path / "killed"
    err = tmp_path / "undisturbed.err"
    assert torchrun(pretrain(run, shards, *SCHEDULE, *more), err, *LAUNCH).wait(PATIENCE) == 0, err.read_text()
    assert err.with_suffix(".out").read_text() == f"{run / 'checkpoints' / 'step_00000008'}\n"  # once
    err = tmp_path / "killed.err"
    process = torchrun(pretrain(killed, shards, *SCHEDULE, *more), err, *LAUNCH)
    wait_for(lambda: len(rows(killed)) >= 3, process, err)
    wait_for(lambda: (killed / "checkpoints" / "step_00000002").exists(), process, err)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    assert process.wait(PATIENCE) == 0, err.read_text()
    said = err.read_text()
    assert "continuing at step " in said
    assert "Traceback" not in said
    assert "forcefully exiting" not in said  # what torchrun says of a process that hangs
    same_run(run, killed)
