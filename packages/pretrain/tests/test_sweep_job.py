"""The job of a cell: its lock, its records, and how it is stopped."""

import json
import os
import signal
import subprocess
import sys

import pytest
from sweep_stand_in import make_folder
from unveil_pretrain.planning.plans import Cell
from unveil_pretrain.sweeping.job import CellJob, attempts_file, is_locked, lock_file, read_outcome


def test_a_locked_cell_is_waited_for(tmp_path, capsys):
    folder = make_folder(tmp_path / "sweep", Cell(recipe="good", steps=3))
    job = CellJob(name="good-f1-s3-r0", command=("false",), folder=folder.path, threads=0)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); "
         "print('held', flush=True); import time; time.sleep(1)", str(lock_file(folder.path, job.name))],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert is_locked(folder.path, job.name)
    assert folder.states()[0].state == "running"
    assert job() == 1
    holder.communicate()
    assert "another process works on it; waiting for" in capsys.readouterr().err
    assert not is_locked(folder.path, job.name)
    assert read_outcome(folder.path, job.name)["code"] == 1
    rows = [json.loads(line) for line in attempts_file(folder.path, job.name).read_text().splitlines()]
    assert [(row["event"], row.get("code")) for row in rows] == [("started", None), ("ended", 1)]


def test_in_a_slurm_job_the_exit_code_is_the_cells(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "sweep", Cell(recipe="good", steps=3))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    for code, words in ((3, "exit 3"), (137, "kill -9 $$")):
        with pytest.raises(SystemExit) as ended:
            CellJob(name="good-f1-s3-r0", command=("sh", "-c", words), folder=folder.path, threads=0)()
        assert ended.value.code == code
    assert '"job": "7_2"' in attempts_file(folder.path, "good-f1-s3-r0").read_text()


@pytest.mark.parametrize("words", ["kill -TERM $PPID; exit 1", "kill -TERM $$", "exit 143"])
def test_what_was_told_to_stop_has_not_failed(tmp_path, words):
    cell = Cell(recipe="good", steps=3)
    folder = make_folder(tmp_path / "sweep", cell)
    CellJob(name=cell.name, command=("sh", "-c", words), folder=folder.path, threads=0)()
    assert read_outcome(folder.path, cell.name)["stopped"]
    assert folder.states()[0].state == "waiting"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("trap", "saved"), [("trap 'echo saved; exit 143' TERM", True), ("trap '' TERM", False)], ids=["saves", "does not"]
)
def test_before_a_requeue_the_command_is_asked_to_save(tmp_path, trap, saved):
    """As submitit does it: a signal handler calls `checkpoint`, and leaves by an exception."""
    folder = make_folder(tmp_path / "sweep", Cell(recipe="good", steps=3))
    words = f"{trap}; echo up; while true; do sleep 0.1; done"
    job = CellJob(name="good-f1-s3-r0", command=("bash", "-c", words), folder=folder.path, threads=0, patience=1)
    log = folder.path / "logs" / f"{job.name}.log"
    again = []

    def queue_again(number, frame):
        again.append(job.checkpoint().function)
        raise SystemExit(255)

    before = signal.signal(signal.SIGUSR2, queue_again)
    notice = subprocess.Popen(
        ["bash", "-c", f"until grep -q up {log} 2>/dev/null; do sleep 0.05; done; kill -USR2 {os.getpid()}"]
    )
    try:
        with pytest.raises(SystemExit):
            job()
    finally:
        signal.signal(signal.SIGUSR2, before)
        notice.wait()
    assert ("saved" in log.read_text()) == saved
    assert again == [job]
    assert read_outcome(folder.path, job.name) is None
    assert not is_locked(folder.path, job.name)
    ended = json.loads(attempts_file(folder.path, job.name).read_text().splitlines()[-1])
    assert (ended["event"], ended["code"]) == ("ended", 143 if saved else -signal.SIGKILL)


def test_a_notice_does_not_reach_the_command(tmp_path):
    folder = make_folder(tmp_path / "sweep", Cell(recipe="good", steps=3))
    words = "kill -USR1 $$; kill -USR2 $$; exit 4"
    assert CellJob(name="good-f1-s3-r0", command=("sh", "-c", words), folder=folder.path, threads=0)() == 4
