"""SLURM as a program on the path: what it is asked, what is made of its answers, and how a job's command is stopped."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_backbones.errors import SlurmError
from unveil_backbones.slurm.arrays import JobSettings, notice_within, sbatch_options
from unveil_backbones.slurm.queue import QueuedJob, ask, has_slurm, queued_jobs, withdraw
from unveil_backbones.slurm.stopping import ask_to_end, heed_no_notice, noticing, wait_for

SETTINGS = {
    "name": "mine", "at_once": 2, "cpus": 3, "gpus": 0, "mem_gb": 0.0, "timeout_min": 90, "notice_s": 60,
    "max_requeues": 5, "partition": "", "account": "", "qos": "", "constraint": "", "setup": "", "sbatch": "",
    "flags": "--cluster.",
}  # fmt: skip


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Writes a program of SLURM's onto an otherwise empty path."""
    places = tmp_path / "programs"
    places.mkdir()
    monkeypatch.setenv("PATH", str(places))

    def write(name, words):
        (places / name).write_text(f"#!/bin/sh\n{words}\n")
        (places / name).chmod(0o755)
        return places

    return write


def test_the_queue_of_a_folder_is_that_of_its_owner(tmp_path, program):
    scripts = tmp_path / "a|b"
    rows = f"70_0|RUNNING|None|{scripts}/x.sh\n71|PENDING|Resources|{scripts}/y.sh\n8|RUNNING|None|/elsewhere/s.sh\n"
    (tmp_path / "rows").write_text(rows)
    places = program("squeue", f'echo "$@" "$SQUEUE_STATES" > "$0.asked"; /bin/cat {tmp_path}/rows')
    assert queued_jobs(scripts) == {}  # no folder, no jobs; nobody is asked
    assert not (places / "squeue.asked").exists()
    scripts.mkdir()
    found = queued_jobs(scripts)
    assert found == {
        "70_0": QueuedJob(number="70_0", state="RUNNING", reason="None"),
        "71": QueuedJob(number="71", state="PENDING", reason="Resources"),
    }
    assert [str(job) for job in found.values()] == ["job 70_0: RUNNING", "job 71: PENDING, Resources"]
    assert f"--user={os.getuid()}" in (places / "squeue.asked").read_text()


def test_what_people_have_in_their_profile_hides_no_job(program, monkeypatch):
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    monkeypatch.setenv("SLURM_CONF", "here")
    program("squeue", 'echo "<$SQUEUE_STATES><$SLURM_CONF>"')
    assert ask("squeue") == "<><here>\n"


def test_a_slurm_that_is_missing_or_silent_is_one_line(program):
    with pytest.raises(SlurmError, match=r"SLURM cannot be used here \(there is no scancel\).*--executor local"):
        withdraw("3")
    assert not has_slurm()
    program("scancel", "echo 'no contact\nat all' >&2; exit 1")
    with pytest.raises(SlurmError, match=r"SLURM does not answer \(no contact at all\); jobs that it has go on"):
        withdraw("3")
    for name in ("sbatch", "squeue", "srun", "scontrol"):
        assert not has_slurm()
        program(name, "true")
    assert has_slurm()


@given(timeout=st.integers(1, 10_000), notice=st.integers(-5, 10_000))
def test_the_notice_is_at_most_a_quarter_of_the_limit(timeout, notice):
    found = notice_within(timeout, notice)
    assert 1 <= found <= max(1, timeout * 15)
    assert found == notice or notice < 1 or notice > timeout * 15


def test_empty_settings_are_left_to_the_cluster(tmp_path):
    options = sbatch_options(tmp_path, JobSettings(**SETTINGS))
    assert options == {
        "name": "mine", "timeout_min": 90, "tasks_per_node": 1, "nodes": 1, "cpus_per_task": 3,
        "slurm_array_parallelism": 2, "slurm_signal_delay_s": 60, "slurm_srun_args": ["--cpus-per-task=3"],
        "slurm_additional_parameters": {"requeue": True, "chdir": str(tmp_path)},
    }  # fmt: skip
    given = {"partition": "big", "qos": "low", "gpus": 2, "mem_gb": 20.0, "setup": "ml x"}
    options = sbatch_options(tmp_path, JobSettings(**SETTINGS | given), after="77")
    assert (options["slurm_partition"], options["slurm_qos"], options["slurm_setup"]) == ("big", "low", ["ml x"])
    assert (options["gpus_per_node"], options["mem_gb"]) == (2, 20.0)
    assert options["slurm_dependency"] == "afterany:77"


@pytest.mark.parametrize("given", ["-p gpu", "it's", "=x"])
def test_what_cannot_be_an_option_of_sbatch_is_named_by_its_flag(tmp_path, given):
    with pytest.raises(SlurmError, match=r"--cluster\.sbatch"):
        sbatch_options(tmp_path, JobSettings(**SETTINGS | {"sbatch": given}))


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.mark.parametrize(("program_text", "end"), [(STUBBORN, -signal.SIGKILL), ("", -signal.SIGTERM)])
def test_a_command_is_asked_first_and_then_ended(program_text, end):
    words = program_text or "import time; print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"up\n"
        ask_to_end(child.pid, patience=0.3)
        assert child.wait(10) == end
        ask_to_end(child.pid, patience=0.3)  # which has ended: nothing happens


def test_a_child_heeds_no_notice():
    words = "import time; print('up', flush=True); time.sleep(0.5); print('whole', flush=True)"
    command = [sys.executable, "-c", words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=heed_no_notice) as child:
        assert child.stdout.readline() == b"up\n"
        child.send_signal(signal.SIGUSR2)
        assert child.stdout.read() == b"whole\n"
        assert child.wait(10) == 0


def test_a_signal_that_another_thread_gets_is_answered_while_a_command_runs():
    """Under load the kernel may hand it to any thread, and a plain wait of the main one goes on."""
    answered = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: answered.append(time.monotonic()))
    asleep = threading.Event()
    other = threading.Thread(target=asleep.wait)
    other.start()
    sender = threading.Timer(0.3, lambda: signal.pthread_kill(other.ident, signal.SIGUSR2))
    try:
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)"]) as command:
            sender.start()
            assert wait_for(command) == 0
            ended = time.monotonic()
    finally:
        asleep.set()
        other.join()
        sender.join()
        signal.signal(signal.SIGUSR2, before)
    assert len(answered) == 1
    assert ended - answered[0] > 1


def test_a_process_lives_through_termination_and_knows_of_it():
    before = signal.getsignal(signal.SIGTERM)
    with noticing() as notice:
        assert not notice.stopped
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + 5
        while not notice.stopped and time.monotonic() < until:
            time.sleep(0.01)
        assert notice.stopped
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_process_that_waits_for_a_job_loads_no_torch():
    words = (
        "import sys, unveil_backbones.slurm.arrays, unveil_backbones.slurm.stopping; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0
