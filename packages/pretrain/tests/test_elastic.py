"""torchrun restarts a run whose process was killed; it ends like one that nothing happened to."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SETTINGS = (
    "--image-size", "32", "32", "--steps", "8", "--batch-size", "4", "--warmup-steps", "1", "--checkpoint-every", "2",
    "--validate-every", "4", "--gap-images", "0", "--decoder-depth", "1", "--device", "cpu", "--loggers",
)  # fmt: skip
PATIENCE = 900  # seconds; a machine with other work on it starts processes slowly
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def torchrun(out, shards, *more, launch=("--standalone", "--nproc-per-node", "2", "--max-restarts", "2")):
    """The command as a person gives it, in the background; stderr goes to a file beside the run."""
    command = [
        sys.executable, "-m", "torch.distributed.run", *launch, "-m", "unveil_pretrain", "mim", "tiny_mae",
        "--out", str(out), "--train-data", shards[0], "--val-data", shards[1], *SETTINGS, *more,
    ]  # fmt: skip
    with out.with_suffix(".err").open("w") as said:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=ENVIRONMENT)


def children(pid):
    """Processes that a process has started, in the order of their ranks."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ranks = {}
    for child in found:
        about = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        rank = [entry for entry in about if entry.startswith(b"RANK=")]
        if rank:
            ranks[int(rank[0].removeprefix(b"RANK="))] = int(child)
    return [ranks[rank] for rank in sorted(ranks)]


def rows(run, name="metrics.jsonl"):
    file = run / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for(run, process, reached):
    deadline = time.monotonic() + PATIENCE
    while not reached(run):
        assert process.poll() is None, run.with_suffix(".err").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
    undisturbed = torchrun(tmp_path / "undisturbed", shards, *more)
    assert undisturbed.wait(PATIENCE) == 0, (tmp_path / "undisturbed.err").read_text()
    process = torchrun(tmp_path / "killed", shards, *more)
    wait_for(tmp_path / "killed", process, lambda run: len(rows(run)) >= 3)
    wait_for(tmp_path / "killed", process, lambda run: (run / "checkpoints" / "step_00000002").exists())
    os.kill(children(process.pid)[1], signal.SIGKILL)
    assert process.wait(PATIENCE) == 0, (tmp_path / "killed.err").read_text()
    said = (tmp_path / "killed.err").read_text()
    assert "continuing at step " in said
    assert "Traceback" not in said
    assert "forcefully exiting" not in said  # what torchrun says of a process that hangs
    same_run(tmp_path / "undisturbed", tmp_path / "killed")
