"""Several processes, one run: each cell once, a dead process told, and the rows of a serial run."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from toy_task import ToyTask, loader
from unveil_backbones.slurm.queue import QueuedJob
from unveil_evalharness.errors import UsageError
from unveil_evalharness.executing import cluster
from unveil_evalharness.executing.dispatch import dispatch
from unveil_evalharness.executing.ranks import Rank, rank_environment, take_rank, visible_device
from unveil_evalharness.grid import build_grid
from unveil_evalharness.options import ClusterOptions, RunOptions, command_line
from unveil_evalharness.parsing import parse_options
from unveil_evalharness.results import read_rows
from unveil_evalharness.run import RunSummary, run

HELPERS = Path(__file__).with_name("helpers")
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": "29500"}


def test_torchrun_is_read_and_taken_away():
    environment = dict(TORCHRUN)
    rank = take_rank(environment)
    assert rank is not None
    assert (rank.number, rank.local, rank.started_by_harness) == (3, 1, False)
    assert environment == {"MASTER_PORT": "29500"}
    other = take_rank(TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0"})
    assert other is not None
    assert other.run_id == rank.run_id
    restarted = take_rank(TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "1"})
    assert restarted is not None
    assert restarted.run_id != rank.run_id


def test_outside_of_everything_there_is_no_rank():
    assert take_rank({}) is None
    assert take_rank({"RANK": "0"}) is None


def test_a_process_of_the_harness_knows_its_run():
    assert take_rank(rank_environment(number=1, world=2, run_id="r")) == Rank(
        number=1, local=1, run_id="r", started_by_harness=True
    )
    assert take_rank({"UNVEIL_RUN_ID": "r"}) == Rank(number=0, local=0, run_id="r", started_by_harness=True)


def test_devices_are_those_that_are_visible():
    assert [visible_device({}, number) for number in (0, 1)] == ["0", "1"]
    assert [visible_device({"CUDA_VISIBLE_DEVICES": "4,6"}, number) for number in (0, 1, 2)] == ["4", "6", "4"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process that its parent has ended")
def test_a_worker_ends_with_the_process_that_started_it():
    child = "from unveil_evalharness.executing.ranks import end_with_parent as end; end(); print(flush=True); input()"
    parent = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()
"""
    words = [sys.executable, "-c", parent]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        number = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{number}").exists() and "Z" not in Path(f"/proc/{number}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    "options",
    [
        RunOptions(ckpt=(Path("a"), Path("b")), data_root=Path("d"), output_path=Path("o")),
        RunOptions(
            ckpt=(Path("a"),),
            data_root=Path("d"),
            output_path=Path("o"),
            tasks=("knn", "x.y:Z"),
            suite="full",
            protocol=("knn=short",),
            seeds=(3, 4),
            repeats=2,
            limit=0.25,
            batch_size=8,
            device="cpu",
            devices=2,
            executor="slurm",
            cluster=ClusterOptions(partition="gpu", mem_gb=1.5),
            overwrite=True,
            progress=False,
            json=True,
        ),
    ],
)
def test_options_survive_their_command_line(options):
    assert parse_options(RunOptions, "run", command_line(options)) == options


def test_processes_of_one_run_try_a_failing_cell_once(options):
    task = ToyTask(fails=RuntimeError("no"))
    first = run(options, load=loader(task), run_id="r")
    second = run(options, load=loader(task), run_id="r")
    assert len(task.contexts) == 1
    assert (first.num_failed, second.num_failed, second.exit_code) == (1, 1, 1)
    run(options, load=loader(task), run_id="another")
    assert len(task.contexts) == 2


def test_overwriting_is_done_once_by_all_processes_of_a_run(options):
    task = ToyTask()
    run(options, load=loader(task))
    again = replace(options, overwrite=True)
    task.value = 0.25
    for _ in range(2):
        summary = run(again, load=loader(task), run_id="r")
    assert len(task.contexts) == 2
    assert [row.value for row in summary.rows] == [0.25, 1.5]
    assert len(read_rows(options.output_path / "results.jsonl")) == 4


def test_a_cell_in_which_a_process_of_this_run_died_is_a_failure_and_the_others_run(options):
    options = replace(options, tasks=("toy", "other"))
    run(options, load=loader(ToyTask(), ToyTask(name="other")), run_id="r")
    (options.output_path / "results.jsonl").unlink()
    (cell, _) = build_grid(options, loader(ToyTask(), ToyTask(name="other"))).cells
    lock = options.output_path / "work" / f"{cell.stem('data-1')}.lock"
    lock.write_text("r")
    task = ToyTask()
    summary = run(options, load=loader(task, ToyTask(name="other")), run_id="r")
    assert task.contexts == []
    assert [row.status for row in summary.rows] == ["failed", "ok", "ok"]
    assert "was killed; the system may have been out of memory" in summary.rows[0].error
    # The next run tries it again, also where the lock is still there.
    lock.write_text("r")
    assert run(options, load=loader(task, ToyTask(name="other")), run_id="s").exit_code == 0


def test_one_job_for_all_repeats_of_a_cell(options, mae_checkpoint):
    options = replace(options, tasks=("toy_task:ToyTask", "other"), seeds=(0, 1), repeats=2, limit=3)
    options = replace(options, protocol=("other=full",))
    by_name = {"toy_task:ToyTask": ToyTask(), "other": ToyTask(name="other")}
    cells = build_grid(options, by_name.__getitem__).cells
    assert len(cells) == 8
    jobs = cluster.cell_jobs(options, cells, run_id="r")
    assert [job.name.split("-")[0] + job.name[-1] for job in jobs] == ["toy0", "toy1", "other0", "other1"]
    own = parse_options(RunOptions, "run", jobs[1].command[4:])
    assert (own.tasks, own.seeds, own.repeats, own.limit) == (("toy_task:ToyTask",), (1,), 2, 3)
    assert own.protocol == ()
    assert parse_options(RunOptions, "run", jobs[2].command[4:]).protocol == ("other=full",)
    assert (own.ckpt, own.executor, own.devices) == ((mae_checkpoint.resolve(),), "inline", 1)
    assert jobs[2].environment == {"UNVEIL_RUN_ID": "r"}
    assert cluster.cell_jobs(options, cells, run_id=None)[2].environment == {}
    # A job starts in another directory than the user's, from which a task of the user's own is imported.
    assert jobs[0].environment["PYTHONPATH"].split(os.pathsep)[0] == str(Path.cwd())
    assert own.output_path.is_absolute()


def test_slurm_that_is_not_there_is_one_line(options, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"--executor slurm: SLURM cannot be used here .* use --executor local"):
        dispatch(replace(options, executor="slurm"), rank=None, summary=RunSummary(), load=loader(ToyTask()))


def test_what_slurm_is_told(options, monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    programs = tmp_path / "bin"
    programs.mkdir()
    stand_ins = {
        "srun": "true",
        "sbatch": 'cat "$1" > "$0.got"; echo Submitted batch job 12',
        "squeue": "true",
        "scontrol": "echo MaxArraySize = 1001",
    }
    for name, words in stand_ins.items():
        (programs / name).write_text(f"#!/bin/sh\n{words}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    settings = ClusterOptions(partition="long", gpus=1, cpus=3, timeout_min=90, sbatch="exclusive", setup="ml x")
    options = replace(options, executor="slurm", seeds=(0, 1), devices=2, cluster=settings)
    dispatch(options, rank=None, summary=RunSummary(), load=loader(ToyTask()))
    script = (programs / "sbatch.got").read_text()
    for line in (
        "--partition=long",
        "--gpus-per-node=1",
        "--cpus-per-task=3",
        "--time=90",
        "--array=0-1%2",
        "--requeue",
        "--exclusive",
        "--signal=USR2@120",
        f"--job-name=evalharness-{options.output_path.name}",
        f"--chdir={options.output_path.resolve() / 'submitit'}",
    ):
        assert f"#SBATCH {line}\n" in script
    assert "\nml x\n" in script
    assert "--cpus-per-task=3 " in next(line for line in script.splitlines() if line.startswith("srun"))
    numbers = {json.loads(file.read_text())["job_id"] for file in (options.output_path / "submitit/jobs").iterdir()}
    assert numbers == {"12_0", "12_1"}


def test_slurm_gets_what_it_does_not_have(options, monkeypatch, capsys):
    def submit(jobs, options, *, submitted):
        names.extend(job.name for job in jobs)
        for number, job in enumerate(jobs):
            submitted(job, f"7_{number}")

    names, queued = [], {}
    monkeypatch.setattr("unveil_evalharness.executing.dispatch.submit_slurm_jobs", submit)
    monkeypatch.setattr("unveil_evalharness.executing.dispatch.queued_by_name", lambda options: queued)
    options = replace(options, executor="slurm", seeds=(0, 1))
    for _ in range(2):
        dispatch(options, rank=None, summary=RunSummary(), load=loader(ToyTask()))
        queued[names[0]] = QueuedJob(number="7_0", state="PENDING", reason="Resources")
    assert [name[-5:] for name in names] == ["seed0", "seed1", "seed1"]
    said = capsys.readouterr().err
    assert "SLURM has it as job 7_0: PENDING, Resources" in said
    assert "job 7_1 has left SLURM's queue, and there is something left to do" in said


def command(checkpoint, data, out, *more):
    return [
        "run", "--ckpt", str(checkpoint), "--tasks", "toy_task:ToyTask,zs_retrieval", "--data-root", str(data),
        "--output-path", str(out), "--seeds", "0,1", "--device", "cpu", "--no-progress", *more,
    ]  # fmt: skip


def start(words, launcher=()):
    environment = {**os.environ, "PYTHONPATH": str(HELPERS), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, *launcher, "-m", "unveil_evalharness", *words]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done


def comparable(out):
    """Rows without what is a matter of the moment, in an order of their own."""
    moment = ("time", "seconds", "run_id", "peak_memory")
    rows = [asdict(row) for row in read_rows(out / "results.jsonl")]
    texts = [json.dumps({name: value for name, value in row.items() if name not in moment}) for row in rows]
    return sorted(texts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "launcher"),
    [
        (["--devices", "2"], []),
        ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]),
        (["--executor", "local", "--devices", "2"], []),
    ],
    ids=["devices", "torchrun", "submitit"],
)
def test_many_processes_give_the_rows_of_one(flip_checkpoint, caption_shards, tmp_path, words, launcher):
    serial = start(command(flip_checkpoint, caption_shards, tmp_path / "serial"))
    many = start(command(flip_checkpoint, caption_shards, tmp_path / "many", *words), launcher)
    assert comparable(tmp_path / "many") == comparable(tmp_path / "serial")
    assert many.stdout == serial.stdout
    assert list((tmp_path / "many" / "work").iterdir()) == []
