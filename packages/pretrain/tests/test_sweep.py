"""Sweeps: plans as files, states of cells, a real sweep with a failing cell that is killed and continued, SLURM."""

import csv
import fcntl
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweep_stand_in import DATA, FAKE, finish, make_folder, stand_in
from unveil_pretrain.cli import main
from unveil_pretrain.commands.sweep import run as sweep
from unveil_pretrain.errors import SweepError
from unveil_pretrain.planning.plans import Cell, Plan
from unveil_pretrain.sweeping.driver import run_local
from unveil_pretrain.sweeping.executors import Resources, cell_job
from unveil_pretrain.sweeping.folder import Data, SweepFolder
from unveil_pretrain.sweeping.job import CellJob
from unveil_pretrain.sweeping.table import read_rows, table, write_summary


@pytest.fixture
def fake(monkeypatch):
    """Cells run the stand-in."""
    monkeypatch.setattr("unveil_pretrain.sweeping.driver.cell_job", stand_in)


def starts(folder, cell):
    return len((folder.run_path(cell) / "starts").read_text())


def test_command_of_a_cell(tmp_path):
    folder = make_folder(tmp_path / "sweep", Cell(recipe="tiny_mae", steps=10, fraction=0.5))
    cell = folder.plan().cells[0]
    command = cell_job(folder, cell, DATA, Resources(), threads=2).command
    assert command[:5] == (sys.executable, "-m", "unveil_pretrain", "mim", "tiny_mae")
    assert "--device cpu" in " ".join(command)
    assert "--num-unique 20" in " ".join(command)
    several = cell_job(folder, cell, DATA, Resources(gpus=4), threads=2).command
    assert several[1:5] == ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4")
    assert "--device cuda" in " ".join(several)


def test_cells_outlive_a_failing_one(tmp_path, fake):
    cells = [Cell(recipe=how, steps=3) for how in ("good", "fail", "crash", "fine")]
    folder = make_folder(tmp_path / "sweep", *cells)
    said = []
    states = run_local(folder, Resources(), at_once=2, log=said.append)
    assert [state.state for state in states] == ["done", "failed", "failed", "done"]
    assert states[1].reason == "planted"
    assert states[2].reason == "exit code 1: RuntimeError: boom"
    diary = [json.loads(line) for line in (folder.path / "sweep.jsonl").read_text().splitlines()]
    assert {(row["cell"], row["event"]) for row in diary if row["event"] == "failed"} == {
        (cells[1].name, "failed"),
        (cells[2].name, "failed"),
    }
    shown = table(read_rows(folder, [state for state in states if state.state == "failed"]))
    assert f"{cells[1].name} failed: planted" in shown
    # Again: what is done stays, what failed is tried once more.
    run_local(folder, Resources(), at_once=4, log=said.append)
    assert [starts(folder, cell) for cell in cells] == [1, 2, 2, 1]


def test_never_more_than_so_many_at_once(tmp_path, fake, monkeypatch):
    folder = make_folder(tmp_path / "sweep", *(Cell(recipe="good", steps=3, seed=seed) for seed in range(5)))
    at_work = []
    handles = []

    class Handle:
        def __init__(self, job):
            self.job, self.looks, self.job_id = job, 0, job.name
            handles.append(self)
            at_work.append(sum(not handle.over for handle in handles))

        over = False

        def done(self):
            self.looks += 1
            if self.looks == 2:
                self.over = True
                self.job()
            return self.over

    monkeypatch.setattr("unveil_pretrain.sweeping.driver.start_local", lambda job, resources, slot: Handle(job))
    monkeypatch.setattr("unveil_pretrain.sweeping.driver._LOOK_EVERY", 0.0)
    states = run_local(folder, Resources(), at_once=2, log=lambda _: None)
    assert [state.state for state in states] == ["done"] * 5
    assert max(at_work) == 2


def test_states(tmp_path):
    cells = [Cell(recipe="r", steps=3, seed=seed) for seed in range(3)]
    folder = make_folder(tmp_path / "sweep", *cells)
    finish(folder, cells[0])
    folder.run_path(cells[1]).mkdir()
    (folder.run_path(cells[1]) / "metrics.jsonl").write_text('{"step": 2}\n')
    assert [state.state for state in folder.states()] == ["done", "interrupted", "waiting"]
    folder.note("submitted", cells[2], job="7")
    assert (folder.states()[2].state, folder.states()[2].job) == ("submitted", "7")
    with pytest.raises(SweepError, match="submitted to SLURM as job 7"):
        run_local(folder, Resources(), at_once=1, log=lambda _: None)


def test_a_folder_takes_no_other_sweep(tmp_path):
    cell = Cell(recipe="r", steps=3)
    folder = make_folder(tmp_path / "sweep", cell)
    folder.claim(Plan(cells=(cell, Cell(recipe="more", steps=1))), DATA)  # cells may be added
    with pytest.raises(SweepError, match="lacks its cell"):
        folder.claim(Plan(cells=(cell,)), DATA)
    with pytest.raises(SweepError, match="other settings"):
        folder.claim(Plan(cells=(Cell(recipe="r", steps=3, settings={"lr": 1}), Cell(recipe="more", steps=1))), DATA)
    other = Data(train_data="t", val_data="v", num_images=40, data_hash="other")
    with pytest.raises(SweepError, match="other training data"):
        folder.claim(folder.plan(), other)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(SweepError, match="holds no sweep"):
        make_folder(tmp_path / "full", cell)
    with pytest.raises(SweepError, match="holds no sweep"):
        SweepFolder(tmp_path / "none").states()


def test_one_sweep_at_a_time(tmp_path):
    folder = make_folder(tmp_path / "sweep", Cell(recipe="r", steps=3))
    with (folder.path / "locks" / ".sweep").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SweepError, match="another `pretrain sweep`"):
            run_local(folder, Resources(), at_once=1, log=lambda _: None)


def test_missing_submitit_is_named(tmp_path, fake, monkeypatch):
    folder = make_folder(tmp_path / "sweep", Cell(recipe="good", steps=3))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SweepError, match=r"pip install 'unveil-pretrain\[cluster\]'"):
        run_local(folder, Resources(), at_once=1, log=lambda _: None)


def test_looking_needs_no_torch(tmp_path):
    folder = make_folder(tmp_path / "sweep", Cell(recipe="good", steps=3))
    code = (
        "import sys; from unveil_pretrain.commands.sweep import run; run(sys.argv[1:]); "
        "print(sorted({'torch', 'timm', 'submitit'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--out", str(folder.path), "--status"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "1 waiting" in done.stdout


def test_requeued_by_slurm_is_the_same_job(tmp_path):
    job = CellJob(name="x", command=("true",), folder=tmp_path, threads=0)
    assert job.checkpoint().function == job


def test_flags_that_cannot_be(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--out", str(tmp_path / "none"), "--status"])
    assert "holds no sweep" in capsys.readouterr().err
    (tmp_path / "plan.json").write_text(Plan(cells=(Cell(recipe="r", steps=1),)).to_json())
    with pytest.raises(SweepError, match="give both"):
        sweep([str(tmp_path / "plan.json"), "--out", str(tmp_path / "x"), "--train-data", "a"])
    with pytest.raises(SweepError, match="at least 1"):
        sweep(["--out", str(tmp_path / "x"), "--jobs", "0"])


def test_a_killed_sweep_continues(tmp_path, fake):
    """kill -9 of the sweep: its running cell goes on, is waited for, and no cell is run twice."""
    cells = [Cell(recipe=how, steps=3) for how in ("slow", "good")]
    folder = make_folder(tmp_path / "sweep", *cells)
    script = tmp_path / "killed.py"
    script.write_text(
        f"""
import sys
from pathlib import Path
from unveil_pretrain.sweeping import driver
from unveil_pretrain.sweeping.executors import Resources
from unveil_pretrain.sweeping.folder import SweepFolder
from unveil_pretrain.sweeping.job import CellJob
FAKE = {FAKE!r}
def job(folder, cell, data, resources, *, threads):
    command = (sys.executable, "-c", FAKE, str(folder.run_path(cell)), str(cell.steps), cell.recipe)
    return CellJob(name=cell.name, command=command, folder=folder.path.resolve(), threads=threads)
driver.cell_job = job
driver.run_local(SweepFolder(Path({str(folder.path)!r})), Resources(), at_once=1, log=print)
"""
    )
    with subprocess.Popen([sys.executable, str(script)]) as killed:
        while not (folder.run_path(cells[0]) / "starts").exists():
            assert killed.poll() is None
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
    said = []
    states = run_local(folder, Resources(), at_once=1, log=said.append)
    assert [state.state for state in states] == ["done", "done"]
    assert "still running from an earlier sweep" in said[0]
    assert [starts(folder, cell) for cell in cells] == [1, 1]


@pytest.mark.slow
def test_a_real_sweep(tmp_path, shards, capsys):
    """Three cells of real training, one of which cannot be: through the command line, killed and continued."""
    settings = {"validate_every": 2, "warmup_steps": 1, "gap_images": 4, "checkpoint_every": 2, "batch_size": 4}
    cells = (
        Cell(recipe="tiny_mae", steps=6, fraction=0.5, settings=settings),
        Cell(recipe="tiny_mae", steps=6, settings={"encoder": "swinv2_tiny"}),
        Cell(recipe="tiny_flip", command="flip", steps=4, settings=settings | {"negative_pool": 4}),
    )
    (tmp_path / "plan.json").write_text(Plan(cells=cells).to_json())
    out = tmp_path / "sweep"
    words = [str(tmp_path / "plan.json"), "--out", str(out), "--train-data", shards[0], "--val-data", shards[1]]
    first = out / "cells" / cells[0].name
    with subprocess.Popen([sys.executable, "-m", "unveil_pretrain", "sweep", *words]) as killed:
        while not (first / "metrics.jsonl").exists():
            assert killed.poll() is None
            time.sleep(0.1)
        killed.send_signal(signal.SIGKILL)
    assert sweep([*words, "--jobs", "2"]) == 1
    shown = capsys.readouterr().out
    assert f"{cells[1].name} failed: mae encodes kept tokens only" in shown
    with (out / "summary.csv").open() as stream:
        rows = {row["cell"]: row for row in csv.DictReader(stream)}
    assert [rows[cell.name]["state"] for cell in cells] == ["done", "failed", "done"]
    done = rows[cells[0].name]
    assert float(done["val_loss"]) > 0
    assert float(done["gap"]) == pytest.approx(float(done["val_loss"]) - float(done["train_loss"]))
    assert int(done["unique_samples"]) == 12
    assert float(done["flops"]) > 0
    assert (out / done["checkpoint"] / "manifest.json").is_file()
    assert len(done["checkpoint_sha256"]) == 64
    steps = [json.loads(line)["step"] for line in (first / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    diary = [json.loads(line) for line in (out / "sweep.jsonl").read_text().splitlines()]
    assert [row["event"] for row in diary if row["cell"] == cells[0].name].count("started") == 1
    folder = SweepFolder(Path(out))
    assert write_summary(folder, read_rows(folder, folder.states())) == out / "summary.csv"
