"""Machines join and leave a run (`torchrun --nnodes 1:2`): it goes on from its last checkpoint with those there are.

Each "machine" is an agent of torchrun with its processes, all on this one. The losses are those of a run that nothing
happened to within 1e-4 relative, since sums of float32 are in another order on another number of processes, and the
differences of 24 steps add up.
"""

import os
import signal
import socket

import pytest
from torchrun_runs import PATIENCE, children, kill_machine, pretrain, rows, torchrun, wait_for
from unveil_backbones import load

SCHEDULE = ("--steps", "24", "--checkpoint-every", "4", "--validate-every", "12")


@pytest.fixture
def machine(tmp_path):
    """Starts an agent with so many processes; all of a test meet at the first one. They are killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    started = []

    def start(words, *, num_processes=1):
        first = not started
        # A machine is dead when nothing was heard of it for 20 seconds, so that one with other work is not; by default
        # that is 15, and the last call to join takes 30 more.
        alive = "keep_alive_interval=1,keep_alive_max_attempt=20,heartbeat=60"
        settings = f"is_host={int(first)},last_call_timeout=1,{alive},join_timeout={PATIENCE}"
        err = tmp_path / f"machine_{len(started)}.err"
        agent = torchrun(
            words, err, "--nnodes", "1:2", "--nproc-per-node", str(num_processes), "--max-restarts", "3",
            "--rdzv-backend", "c10d", "--rdzv-id", "elastic", "--rdzv-endpoint", place, "--local-addr", "127.0.0.1",
            "--rdzv-conf", settings,
            TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1",  # as docs/checkpoints.md asks for
        )  # fmt: skip
        started.append(agent)
        return agent, err

    yield start
    for agent in started:
        if agent.poll() is None:
            kill_machine(agent)


def join(machine, words, *, to, err, num_processes=1):
    """Start another machine; the run of the first waits meanwhile, so that it does not end before."""
    held = children(to.pid)
    for process in held:
        os.kill(process, signal.SIGSTOP)
    joined = machine(words, num_processes=num_processes)
    wait_for(lambda: "will restart worker group" in err.read_text(), to, err)
    for process in held:
        os.kill(process, signal.SIGCONT)
    return joined


@pytest.mark.slow
def test_a_machine_joins_and_another_leaves(machine, in_processes, tmp_path, shards):
    undisturbed, run = tmp_path / "undisturbed", tmp_path / "run"
    in_processes(1, *pretrain(undisturbed, shards, *SCHEDULE))
    words = pretrain(run, shards, *SCHEDULE)
    first, err = machine(words)
    wait_for(lambda: len(rows(run)) >= 2, first, err)
    second, _ = join(machine, words, to=first, err=err)
    before = len(rows(run))
    wait_for(lambda: len(rows(run)) >= max(before + 2, 7), first, err)
    kill_machine(second)
    assert first.wait(PATIENCE) == 0, err.read_text()
    said = err.read_text()
    assert "Traceback" not in said
    starts = [line for line in said.splitlines() if "continuing at step " in line]
    assert len(starts) == 2, said
    expected = [row["loss"] for row in rows(undisturbed)]
    assert [row["step"] for row in rows(run)] == list(range(1, 25))
    assert [row["loss"] for row in rows(run)] == pytest.approx(expected, rel=1e-4)
    assert load(run).manifest.step == 24
