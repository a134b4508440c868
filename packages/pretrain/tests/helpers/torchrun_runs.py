"""Runs as torchrun starts them: the command as a person gives it, its processes, its records."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = (
    "--image-size", "32", "32", "--batch-size", "4", "--warmup-steps", "1", "--gap-images", "0", "--decoder-depth", "1",
    "--device", "cpu", "--loggers",
)  # fmt: skip
PATIENCE = 900  # seconds; a machine with other work on it starts processes slowly
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "LOGLEVEL": "INFO"}


def pretrain(out, shards, *more):
    """The words of a run of tiny MAE."""
    data = ("--train-data", shards[0], "--val-data", shards[1])
    return ("unveil_pretrain", "mim", "tiny_mae", "--out", str(out), *data, *SETTINGS, *more)


def torchrun(words, err, *launch, **environment):
    """One agent of torchrun in the background, and its processes.

    What they say goes to the file `err`, what they print to the file beside it with the suffix .out.
    """
    command = [sys.executable, "-m", "torch.distributed.run", *launch, "-m", *words]
    with err.open("w") as said, err.with_suffix(".out").open("w") as printed:
        return subprocess.Popen(command, stdout=printed, stderr=said, env=ENVIRONMENT | environment)


def children(pid):
    """Processes that an agent has started, in the order of their ranks."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ranks = {}
    for child in found:
        about = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        rank = [entry for entry in about if entry.startswith(b"RANK=")]
        if rank:
            ranks[int(rank[0].removeprefix(b"RANK="))] = int(child)
    return [ranks[rank] for rank in sorted(ranks)]


def kill_machine(agent):
    """What a power failure does: the agent and its processes are gone at once."""
    processes = [agent.pid, *children(agent.pid)]
    for process in processes:
        os.kill(process, signal.SIGKILL)
    agent.wait(PATIENCE)


def rows(run, name="metrics.jsonl"):
    """The records of a run so far."""
    file = run / name
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_for(reached, process, err):
    """Wait until `reached()`; the process must not end before."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert process.poll() is None, err.read_text()
        assert time.monotonic() < deadline, err.read_text()
        time.sleep(0.01)
