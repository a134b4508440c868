"""`run`: what is evaluated, what is skipped, what a failure leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import polars
import pytest
from toy_task import ToyProtocol, ToyTask, loader
from unveil_evalharness.errors import (
    DataError,
)
from unveil_evalharness.results import read_rows
from unveil_evalharness.run import RunSummary, run
from unveil_evalharness.task import TaskResult


def test_one_row_per_metric_with_everything_needed_to_trust_it(options, mae_checkpoint):
    summary = run(options, load=loader(ToyTask()))
    rows = read_rows(options.output_path / "results.jsonl")
    assert summary.rows == rows
    assert (summary.num_run, summary.num_skipped, summary.exit_code) == (1, 0, 0)
    first, second = rows
    assert (first.metric, first.value, first.baseline, first.standard_error, first.n) == (
        "toy.score",
        0.75,
        0.5,
        0.1,
        4,
    )
    assert (second.metric, second.higher_is_better, second.main) == ("toy.loss", False, False)
    assert first.main
    assert first.checkpoint == str(mae_checkpoint.resolve())
    assert first.label == "mae vit_tiny u=16 s=10"
    assert first.load_coverage == 1.0
    assert not first.limited
    assert {"python", "torch", "unveil-evalharness"} <= first.versions.keys()
    assert "threads" in first.hardware
    assert first.time.endswith("+00:00")


def test_the_output_folder_explains_itself(options, mae_checkpoint):
    run(options, load=loader(ToyTask()))
    out = options.output_path
    row = read_rows(out / "results.jsonl")[0]
    manifest = out / "manifests" / f"{row.checkpoint_sha256[:12]}.json"
    assert manifest.read_bytes() == (mae_checkpoint / "manifest.json").read_bytes()
    protocol = json.loads((out / "protocols" / f"{row.protocol}.json").read_text())
    assert protocol == {"task": "toy", "version": 1, "suite": "quick", "protocol": {"steps": 3}}
    assert row.samples.startswith(f"samples/toy-{row.checkpoint_sha256[:12]}-seed0-")
    assert polars.read_parquet(out / row.samples)["hit"].to_list() == [True, False]
    assert list((out / "work").iterdir()) == []


def test_stdout_stays_clean_and_chatter_is_in_the_log(options, capsys):
    run(options, load=loader(ToyTask()))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "a line from the toy" in captured.err
    assert "chatter" not in captured.err
    (log,) = (options.output_path / "logs").iterdir()
    assert log.read_text().splitlines()[:2] == ["chatter on stdout", "a line from the toy"]


def test_the_task_gets_what_was_asked_for(options):
    task = ToyTask()
    run(replace(options, suite="full", seeds=(3,), limit=7, batch_size=5), load=loader(task))
    (context,) = task.contexts
    assert (context.protocol, context.seed, context.limit, context.batch_size) == (ToyProtocol(steps=300), 3, 7, 5)
    assert (context.device, context.progress, context.data_root) == ("cpu", False, options.data_root)


def test_every_cell_gets_a_fresh_checkpoint(options):
    task = ToyTask()
    run(replace(options, seeds=(0, 1)), load=loader(task))
    first, second = (context.checkpoint.encoder for context in task.contexts)
    assert first is not second


def test_a_finished_cell_is_not_run_again(options):
    task = ToyTask()
    run(options, load=loader(task))
    summary = run(options, load=loader(task))
    assert len(task.contexts) == 1
    assert (summary.num_run, summary.num_skipped) == (0, 1)
    assert [row.value for row in summary.rows] == [0.75, 1.5]


@pytest.mark.parametrize(
    ("change", "task"),
    [
        ({"seeds": (1,)}, ToyTask()),
        ({"limit": 2}, ToyTask()),
        ({"suite": "full"}, ToyTask()),
        ({}, ToyTask(version=2)),
        ({}, ToyTask(hash="data-2")),
    ],
)
def test_what_defines_a_number_makes_it_run_again(options, change, task):
    run(options, load=loader(ToyTask()))
    summary = run(replace(options, **change), load=loader(task))
    assert len(task.contexts) == 1
    assert summary.num_run == 1
    assert len(read_rows(options.output_path / "results.jsonl")) == 4


@pytest.mark.parametrize("change", [{"batch_size": 2}, {"seeds": (0, 0)}, {"tasks": ("toy", "toy")}])
def test_what_does_not_define_a_number_does_not(options, change):
    task = ToyTask()
    run(options, load=loader(task))
    run(replace(options, **change), load=loader(task))
    assert len(task.contexts) == 1


def test_another_checkpoint_runs_and_the_same_one_twice_runs_once(options, save_checkpoint, mae_checkpoint, tmp_path):
    task = ToyTask()
    other = save_checkpoint(tmp_path / "other", seed=5)
    copy = shutil.copytree(mae_checkpoint, tmp_path / "copy")
    run(replace(options, ckpt=(mae_checkpoint, other, copy)), load=loader(task))
    assert len(task.contexts) == 2


def test_a_run_folder_stands_for_its_last_checkpoint(options, save_checkpoint, tmp_path):
    for step in (10, 20):
        save_checkpoint(tmp_path / "run" / "checkpoints" / f"step_{step:08d}", step=step)
    summary = run(replace(options, ckpt=(tmp_path / "run",)), load=loader(ToyTask()))
    assert summary.rows[0].label.endswith("s=20")


def test_limited_rows_are_marked(options):
    summary = run(replace(options, limit=2), load=loader(ToyTask()))
    assert all(row.limited and row.limit == 2 for row in summary.rows)


def test_a_failing_task_is_recorded_and_the_others_run(options, capsys):
    bad = ToyTask(name="bad", fails=RuntimeError("tensor of size 3\n   does not match 4"))
    good = ToyTask()
    summary = run(replace(options, tasks=("bad", "toy")), load=loader(bad, good))
    assert (summary.num_run, summary.num_failed, summary.exit_code) == (2, 1, 1)
    failed = next(row for row in summary.rows if row.task == "bad")
    assert (failed.status, failed.metric, failed.value) == ("failed", "bad.score", None)
    assert failed.error == "RuntimeError: tensor of size 3 does not match 4"
    assert [row.status for row in summary.rows if row.task == "toy"] == ["ok", "ok"]
    (log,) = (options.output_path / "logs").glob("bad-*.log")
    assert "Traceback (most recent call last)" in log.read_text()
    assert "Traceback" not in capsys.readouterr().err
    assert list((options.output_path / "work").iterdir()) == []


def test_a_failed_cell_is_tried_again_and_its_success_replaces_the_failure(options):
    run(options, load=loader(ToyTask(fails=MemoryError())))
    summary = run(options, load=loader(ToyTask()))
    assert [row.status for row in summary.rows] == ["ok", "ok"]
    assert [row.status for row in read_rows(options.output_path / "results.jsonl")] == ["failed", "ok", "ok"]


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (ToyTask(fails=DataError("x.jpg is damaged; replace it")), "x.jpg is damaged; replace it"),
        (
            ToyTask(fails=MemoryError()),
            "out of memory even with 1 image(s) per pass (MemoryError); --batch-size cannot help: free memory or take "
            "a machine with more",
        ),
        (ToyTask(fails=SystemExit(3)), "SystemExit: 3"),
        (ToyTask(hash=""), "the toy's data is missing"),
        (ToyTask(value=float("nan")), "toy.score is nan (baseline 0.5): not a finite number"),
        (
            ToyTask(requires=("json", "no_such_module")),
            "toy needs no_such_module; install with: pip install 'unveil-evalharness[all]'",
        ),
    ],
)
def test_reasons_are_one_line(options, task, reason):
    summary = run(options, load=loader(task))
    assert summary.rows[0].error == reason
    assert summary.exit_code == 1


def test_a_surprise_in_the_data_check_is_a_failure_of_the_task_only(options):
    class Surprised(ToyTask):
        def data_hash(self, data_root):
            raise KeyError("images")

    summary = run(replace(options, tasks=("toy", "other")), load=loader(Surprised(), ToyTask(name="other")))
    assert [(row.task, row.status) for row in summary.rows] == [("toy", "failed"), ("other", "ok"), ("other", "ok")]
    assert summary.rows[0].error == "KeyError: 'images'"


def test_undeclared_metrics_are_a_failure(options):
    class Forgetful(ToyTask):
        def run(self, context):
            return TaskResult(metrics=super().run(context).metrics[:1])

    summary = run(options, load=loader(Forgetful()))
    assert summary.rows[0].error.startswith("toy declares the metrics ['toy.score', 'toy.loss'] but returned")


def test_missing_data_of_a_finished_cell_does_not_count_as_other_data(options):
    run(options, load=loader(ToyTask(hash="")))
    summary = run(options, load=loader(ToyTask()))
    assert [row.status for row in summary.rows] == ["ok", "ok"]


def test_not_applicable_is_recorded_once_and_is_no_failure(options, save_checkpoint, tmp_path):
    task = ToyTask(hash="")
    checkpoint = save_checkpoint(tmp_path / "ninety-nine", step=99)
    options = replace(options, ckpt=(checkpoint,))
    summary = run(options, load=loader(task))
    assert (summary.rows[0].status, summary.rows[0].error) == ("not_applicable", "the toy wants another label")
    assert summary.exit_code == 0
    assert run(options, load=loader(task)).num_skipped == 1
    assert task.contexts == []


def test_a_cell_that_lost_rows_to_a_kill_runs_again(options):
    task = ToyTask()
    run(options, load=loader(task))
    path = options.output_path / "results.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\n") + 40])
    summary = run(options, load=loader(task))
    assert len(task.contexts) == 2
    assert [row.metric for row in summary.rows] == ["toy.score", "toy.loss"]


def test_an_interrupt_keeps_what_is_finished_and_the_work_folder(options):
    summary = RunSummary()
    stopped = ToyTask(name="stopped", fails=KeyboardInterrupt())
    options = replace(options, tasks=("toy", "stopped"))
    with pytest.raises(KeyboardInterrupt):
        run(options, load=loader(ToyTask(), stopped), summary=summary)
    assert [row.metric for row in summary.rows] == ["toy.score", "toy.loss"]
    assert [row.task for row in read_rows(options.output_path / "results.jsonl")] == ["toy", "toy"]
    (work,) = (options.output_path / "work").iterdir()
    resumed = ToyTask(name="stopped")
    run(options, load=loader(ToyTask(), resumed))
    assert resumed.contexts[0].work_dir == work


@pytest.mark.slow
def test_two_processes_share_the_work(mae_checkpoint, tmp_path):
    program = Path(__file__).with_name("two_processes.py")
    out = tmp_path / "out"
    command = [sys.executable, str(program), str(mae_checkpoint), str(tmp_path), str(out)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = [int(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    rows = read_rows(out / "results.jsonl")
    assert sorted(row.seed for row in rows) == list(range(6))
    assert sum(counts) == 6


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock_behind(mae_checkpoint, tmp_path):
    program = Path(__file__).with_name("two_processes.py")
    out = tmp_path / "out"
    command = [sys.executable, str(program), str(mae_checkpoint), str(tmp_path), str(out)]
    victim = subprocess.Popen([*command, "60"], stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list((out / "work").glob("*.lock")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == "6"
