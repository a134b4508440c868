"""``--devices N``: so many processes on this machine, each with a GPU of its own where there are GPUs."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from unveil_evalharness.console import say
from unveil_evalharness.executing.ranks import rank_environment, visible_device
from unveil_evalharness.options import RunOptions, command_line

__all__ = ["run_workers", "worker_words"]

_PATIENCE = 30  # seconds that an interrupted worker gets to end by itself


def worker_words(options: RunOptions, *, progress: bool) -> list[str]:
    """The command of a process that evaluates cells of `options` by itself."""
    own = replace(options, devices=1, executor="inline", config=None, progress=progress, json=False)
    return [sys.executable, "-m", "unveil_evalharness", "run", *command_line(own)]


def run_workers(options: RunOptions, *, run_id: str) -> None:
    """Starts ``options.devices`` workers and waits for all; the rows are in the output folder.

    A worker that was killed is told on stderr, and the others go on; what it did not finish is up to the caller.

    Raises:
        KeyboardInterrupt: this process was interrupted; the workers have ended.
    """
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(options.devices):
            workers.append(_start(options, number, run_id))  # noqa: PERF401 - an interrupt must find those that run
        for number, worker in enumerate(workers):
            code = worker.wait()
            if code < 0:
                say(f"worker {number} was ended by signal {-code}")
    finally:
        _end(workers)


def _start(options: RunOptions, number: int, run_id: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        worker_words(options, progress=options.progress and number == 0),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=_environment(options, number, run_id),
        # Ctrl-C reaches this process alone, which ends the workers.
        start_new_session=True,
    )


def _environment(options: RunOptions, number: int, run_id: str) -> dict[str, str]:
    environment = {**os.environ, **rank_environment(number=number, world=options.devices, run_id=run_id)}
    if options.device == "cpu":
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.devices)))
    else:
        environment["CUDA_VISIBLE_DEVICES"] = visible_device(os.environ, number)
    return environment


def _end(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Ends the workers that still run: asked first, then not."""
    running = [worker for worker in workers if worker.poll() is None]
    for worker in running:
        worker.terminate()
    for worker in running:
        try:
            worker.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
