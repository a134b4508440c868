"""Evaluation grids on a real SLURM: the rows of a serial run, once each, also through notices and cancelled jobs."""

import dataclasses
import json
from pathlib import Path

import pytest
from unveil_evalharness.cli import main
from unveil_evalharness.results import read_rows

pytestmark = pytest.mark.slurm

# A task of a user's own, in the directory that the command is given in; it counts to twelve and keeps what it counted.
TASK = """
import hashlib, time
from dataclasses import dataclass
import polars
from unveil_evalharness.task import Metric, MetricSpec, TaskResult

@dataclass(frozen=True, kw_only=True)
class Protocol:
    steps: int = 12

class Counting:
    name, version, description, requires = "counting", 1, "counts", ()
    metrics = (MetricSpec(name="counting.total", main=True),)
    def protocol(self, suite): return Protocol()
    def expected_time(self, suite): return "seconds"
    def not_applicable(self, manifest): return None
    def data_hash(self, data_root): return "counted"
    def run(self, context):
        kept, hold = context.work_dir / "count", context.data_root / "hold"
        count = int(kept.read_text()) if kept.exists() else 0
        with (context.data_root / "ledger").open("a") as ledger: ledger.write(f"{context.seed} {count}\\n")
        if (context.data_root / f"fail{context.seed}").exists(): raise RuntimeError("planted")
        while count < context.protocol.steps:
            count += 1
            kept.write_text(str(count))
            while count == 6 and hold.exists(): time.sleep(0.05)
        value = int(hashlib.sha256(f"{context.seed}".encode()).hexdigest()[:8], 16) / 2**32
        samples = polars.DataFrame({"key": ["a", "b"], "hit": [True, False]})
        metric = Metric(name="counting.total", value=value, baseline=0.5, standard_error=0.1, n=2)
        return TaskResult(metrics=(metric,), samples=samples, load_coverage=1.0)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The directory of a user, with their task and data."""
    (tmp_path / "counting_task.py").write_text(TASK)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def words(checkpoint, out, *more):
    return [
        "run", "--ckpt", checkpoint, "--tasks", "counting_task:Counting", "--data-root", "data", "--output-path", out,
        "--seeds", "0,1", "--device", "cpu", "--no-progress", *more,
    ]  # fmt: skip


def on_slurm(checkpoint, capsys, *more, code=0):
    cluster = ["--cluster.gpus", 0, "--cluster.cpus", 1, "--cluster.timeout-min", 5]
    given = words(checkpoint, "out", "--executor", "slurm", "--devices", 2, *cluster, *more)
    capsys.readouterr()
    assert main([str(word) for word in given]) == code
    return capsys.readouterr()


def comparable(out):
    moment = ("time", "seconds", "run_id", "peak_memory")
    rows = [dataclasses.asdict(row) for row in read_rows(out / "results.jsonl")]
    return sorted(json.dumps({name: value for name, value in row.items() if name not in moment}) for row in rows)


def ledger(place):
    """Seed and count at each start of the task."""
    file = place / "data" / "ledger"
    return sorted(tuple(map(int, line.split())) for line in file.read_text().splitlines()) if file.exists() else []


def jobs_of(place):
    files = sorted((place / "out" / "submitit" / "jobs").iterdir())
    return [json.loads(file.read_text())["job_id"] for file in files]


def test_a_grid_gives_the_rows_of_a_serial_run(slurm, place, checkpoint, capsys):
    told = on_slurm(checkpoint, capsys)
    assert told.err.count("submitted as job") == 2
    assert "2 jobs submitted" in told.err
    slurm.wait_until_empty()
    assert main([str(word) for word in words(checkpoint, "serial")]) == 0
    assert comparable(place / "out") == comparable(place / "serial")
    assert len(comparable(place / "out")) == 2
    # The command again has nothing to do, and prints the table.
    again = on_slurm(checkpoint, capsys)
    assert "counting" in again.out
    assert slurm.queue() == {}
    assert ledger(place) == [(0, 0), (0, 0), (1, 0), (1, 0)]  # on SLURM and serially


def test_notice_requeue_cancel_and_the_command_again(slurm, place, checkpoint, capsys):
    """One job gets the notice of a time limit, the other is cancelled; then the command is given again."""
    hold = place / "data" / "hold"
    hold.touch()
    on_slurm(checkpoint, capsys)
    slurm.until(lambda: len(ledger(place)) == 2, "both tasks to start")
    slurm.until(lambda: [kept.read_text() for kept in place.glob("out/*/*/count")] == ["6", "6"], "half of the work")
    first, second = jobs_of(place)
    assert on_slurm(checkpoint, capsys).err.count("SLURM has it as job") == 2
    slurm.ask("scancel", "--signal=USR2", first)
    slurm.ask("scancel", second)
    slurm.until(lambda: len(ledger(place)) == 3, "the first task to start again")
    hold.unlink()
    slurm.wait_until_empty()
    assert ledger(place) == [(0, 0), (0, 6), (1, 0)]
    again = on_slurm(checkpoint, capsys)
    assert f"job {second} has left SLURM's queue, and there is something left to do" in again.err
    assert "1 jobs submitted" in again.err
    slurm.wait_until_empty()
    assert ledger(place) == [(0, 0), (0, 6), (1, 0), (1, 6)]
    rows = read_rows(place / "out" / "results.jsonl")
    assert sorted((row.seed, row.status) for row in rows) == [(0, "ok"), (1, "ok")]
    log = (next((place / "out" / "logs").glob("job-*seed0.log"))).read_text()
    assert f"--- job {first} (restart 0)" in log
    assert f"--- job {first} (restart 1)" in log


def test_a_failing_task_is_a_failed_job_and_is_tried_again(slurm, place, checkpoint, capsys):
    (place / "data" / "fail1").touch()
    on_slurm(checkpoint, capsys)
    slurm.wait_until_empty()
    shown = [slurm.ask("scontrol", "show", "job", job) for job in jobs_of(place)]
    assert ["JobState=COMPLETED" in shown[0], "JobState=FAILED" in shown[1]] == [True, True]
    (place / "data" / "fail1").unlink()
    on_slurm(checkpoint, capsys)
    slurm.wait_until_empty()
    rows = read_rows(place / "out" / "results.jsonl")
    assert sorted((row.seed, row.status) for row in rows) == [(0, "ok"), (1, "failed"), (1, "ok")]


def test_what_slurm_refuses_is_told_at_once(slurm, place, checkpoint, capsys):
    told = on_slurm(checkpoint, capsys, "--cluster.partition", "nowhere", code=2)
    assert "SLURM refused the jobs (invalid partition specified: nowhere" in told.err
    assert slurm.queue() == {}
    assert not Path(place / "out" / "results.jsonl").exists()
