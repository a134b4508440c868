"""Real pre-training on a real SLURM: the results of a serial sweep, through time limits, requeues, broken nodes."""

import contextlib
import csv
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from unveil_pretrain.cli import main
from unveil_pretrain.planning.plans import Cell, Plan
from unveil_pretrain.sweeping.executors import Resources, cell_job
from unveil_pretrain.sweeping.folder import Data, SweepFolder
from unveil_pretrain.sweeping.job import attempts_file
from unveil_pretrain.sweeping.table import read_rows, write_summary

pytestmark = pytest.mark.slurm

SETTINGS = {"validate_every": 3, "warmup_steps": 1, "gap_images": 8, "checkpoint_every": 2, "batch_size": 8}
CELLS = tuple(Cell(recipe="tiny_mae", steps=6, seed=seed, settings=SETTINGS) for seed in (0, 1))


def words(out, shards, cells, *more):
    plan = out.with_suffix(".json")
    plan.write_text(Plan(cells=cells).to_json())
    data = ["--train-data", shards / "train-*.tar", "--val-data", shards / "val-*.tar"]
    return ["sweep", plan, "--out", out, *data, "--threads", "1", *more]


@pytest.fixture(scope="module")
def serial(whole_session, shards, tmp_path_factory):
    """The commands of the cells, one after the other in this process, undisturbed and without SLURM."""
    del whole_session
    folder = SweepFolder(tmp_path_factory.mktemp("serial") / "sweep")
    data = Data(train_data=f"{shards}/train-*.tar", val_data=f"{shards}/val-*.tar", num_images=40, data_hash="")
    folder.claim(Plan(cells=CELLS), data)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for cell in CELLS:
        command = cell_job(folder, cell, data, Resources(), threads=1).command
        assert command[1:3] == ("-m", "unveil_pretrain")
        main(list(command[3:]))
    torch.set_num_threads(threads)
    write_summary(folder, read_rows(folder, folder.states()))
    return folder


def results(folder, cell):
    """What a run computed: its weights, and each step's and validation's loss."""
    run = folder.run_path(cell)
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validations = [json.loads(line) for line in (run / "val.jsonl").read_text().splitlines()]
    weights = load_file(run / "checkpoints" / f"step_{cell.steps:08d}" / "encoder.safetensors")
    return (
        {name: tensor.tolist() for name, tensor in weights.items()},
        [(row["step"], row["loss"]) for row in steps],
        [(row["step"], row["loss"], row["train_loss"]) for row in validations],
    )


def same(folder, serial, *cells):
    for cell in cells:
        assert folder.state(cell).state == "done"
        ours, theirs = results(folder, cell), results(serial, cell)
        assert ours[1:] == theirs[1:]
        assert ours[0] == theirs[0]
        assert [step for step, _ in ours[1]] == list(range(1, cell.steps + 1))  # none lost, none twice
    return True


def command_under_way(slurm, folder, cell, *, steps=2):
    """The process of a cell that has done a few steps, stopped there: the clock runs on, the cell does not."""

    def look():
        rows = [row for row in slurm.rows(attempts_file(folder.path, cell.name)) if row["event"] == "started"]
        done = slurm.rows(folder.run_path(cell) / "metrics.jsonl")
        return rows[-1] if rows and len(done) >= steps else None

    number = slurm.until(look, f"step {steps} of {cell.name}")["command"]
    os.kill(number, signal.SIGSTOP)
    assert folder.state(cell).step < cell.steps
    return number


def go_on(number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, signal.SIGCONT)


def attempts(slurm, folder, cell):
    rows = slurm.rows(attempts_file(folder.path, cell.name))
    assert slurm.each_alone(rows)
    return [(row["event"], row["restart"], row.get("code")) for row in rows]


def log_of(folder, job):
    files = [folder.path / "submitit" / f"{job}_0_log.{kind}" for kind in ("out", "err")]
    return "".join(file.read_text() for file in files if file.exists())


def test_a_grid_gives_what_a_serial_sweep_gives(slurm, shards, serial, tmp_path, capsys):
    """By the command line, from a directory that is gone by then, the data named relative to it."""
    shell = tmp_path / "shell"
    shell.mkdir()
    (tmp_path / "data").symlink_to(shards)
    folder = SweepFolder(tmp_path / "sweep")
    given = words(folder.path, Path("../data"), CELLS, "--executor", "slurm", "--jobs", 2, "--sbatch", "hold")
    told = slurm.command("unveil_pretrain", *given, cwd=shell)
    assert "submitted as job" in told.stderr
    assert "2 submitted" in told.stdout
    shell.rmdir()
    for job in slurm.queue():
        slurm.ask("scontrol", "release", job)
    slurm.wait_until_empty()
    assert same(folder, serial, *CELLS)
    main(["sweep", "--out", str(folder.path), "--status"])
    assert "2 done" in capsys.readouterr().out
    assert rows_of(folder) == rows_of(serial)


def rows_of(folder):
    """The table of a sweep, but for what is a matter of the moment."""
    moment = {"seconds", "device_hours", "device", "checkpoint_sha256"}
    with (folder.path / "summary.csv").open() as stream:
        return [{name: value for name, value in row.items() if name not in moment} for row in csv.DictReader(stream)]


def submit(folder, shards, cells, *more):
    given = words(folder.path, shards, cells, "--executor", "slurm", "--jobs", 2, *more)
    main([str(word) for word in given])
    return [str(state.job) for state in folder.states()]


def test_a_cell_longer_than_its_time_limit(slurm, shards, serial, tmp_path):
    """SLURM's own limit of a minute: notice, checkpoint, requeue by submitit, and on from there."""
    folder = SweepFolder(tmp_path / "sweep")
    (job,) = submit(folder, shards, CELLS[:1], "--timeout-min", 1)
    number = command_under_way(slurm, folder, CELLS[0])
    # A busy machine may have needed more than one start for two steps.
    notices, requeues = "Caught signal SIGUSR2", f"Requeued job {job}"
    before = log_of(folder, job).count(notices)
    try:
        slurm.until(lambda: log_of(folder, job).count(notices) > before, "the notice")
    finally:
        go_on(number)
    slurm.until(lambda: log_of(folder, job).count(requeues) > before, "the requeue")
    slurm.wait_until_empty()
    assert same(folder, serial, CELLS[0])
    *stopped, last = [entry for entry in attempts(slurm, folder, CELLS[0]) if entry[0] == "ended"]
    assert len(stopped) >= before + 1
    assert all(code in (143, -signal.SIGKILL) for _, _, code in stopped)  # the latter where saving took too long
    assert last == ("ended", len(stopped), 0)
    assert "this job is timed-out" in log_of(folder, job)


def test_a_requeue_by_hand_and_another_command_meanwhile(slurm, shards, serial, tmp_path):
    """`scontrol requeue`: the cell saves at SIGTERM and goes on; the sweep's command, given again, starts nothing."""
    folder = SweepFolder(tmp_path / "sweep")
    jobs = submit(folder, shards, CELLS)
    number = command_under_way(slurm, folder, CELLS[0])
    assert submit(folder, shards, CELLS) == jobs
    slurm.ask("scontrol", "requeue", jobs[0])
    go_on(number)
    slurm.wait_until_empty()
    assert same(folder, serial, *CELLS)
    assert attempts(slurm, folder, CELLS[0])[1:] == [("ended", 0, 143), ("started", 1, None), ("ended", 1, 0)]
    assert len(attempts(slurm, folder, CELLS[1])) == 2


@pytest.mark.parametrize("survives", [False, True], ids=["the cell dies with it", "the cell outlives it"])
def test_a_node_whose_daemon_is_killed(slurm, shards, serial, tmp_path, survives):
    """SLURM queues the job again; where the old process is still at work, the new one waits for it."""
    folder = SweepFolder(tmp_path / "sweep")
    (job,) = submit(folder, shards, CELLS[:1])
    number = command_under_way(slurm, folder, CELLS[0])
    slurm.break_node(number)
    slurm.start()
    waits = "another process works on it"
    if not survives:
        os.kill(number, signal.SIGKILL)
    else:
        slurm.until(lambda: waits in log_of(folder, job), "the job to be started again")
        assert folder.state(CELLS[0]).state == "running"
        go_on(number)
    slurm.wait_until_empty()
    slurm.until(lambda: folder.state(CELLS[0]).state != "running", "the old process to end")
    assert same(folder, serial, CELLS[0])
    rows = slurm.rows(attempts_file(folder.path, CELLS[0].name))
    assert [row["restart"] for row in rows if row["event"] == "started"] == [0, 1]
    assert slurm.each_alone(rows)
    assert survives == (waits in log_of(folder, job))
