"""Repeats, limits, dry runs, overwriting, option files, and what a run notes about itself."""

import json
import os
import signal
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from line_training import LineTask
from toy_task import ToyTask, loader
from unveil_evalharness.cli import main
from unveil_evalharness.errors import UsageError
from unveil_evalharness.grid import build_grid
from unveil_evalharness.parsing import with_config
from unveil_evalharness.plan_table import cell_states, format_states
from unveil_evalharness.remaining import in_words, remaining_words
from unveil_evalharness.repeats import spreads
from unveil_evalharness.results import latest, read_rows
from unveil_evalharness.run import open_session, run
from unveil_evalharness.task import TaskResult


class Drifting(ToyTask):
    """A toy whose score moves a little each time, as training on a GPU does."""

    def run(self, context):
        result = super().run(context)
        score, loss = result.metrics
        return TaskResult(metrics=(replace(score, value=score.value + 0.01 * (len(self.contexts) - 1)), loss))


class Sized(ToyTask):
    def num_images(self, data_root, protocol):
        return 50


def test_repeats_are_evaluations_of_their_own_whose_spread_is_kept(options):
    task = Drifting()
    options = replace(options, repeats=3)
    summary = run(options, load=loader(task))
    rows = read_rows(options.output_path / "results.jsonl")
    assert [row.repeat for row in rows] == [0, 0, 1, 1, 2, 2]
    assert summary.rows == rows
    assert latest(rows) == rows[:2]
    score, loss = spreads(rows)
    assert score.width == pytest.approx(0.02)
    assert loss.width == 0
    assert run(options, load=loader(task)).num_skipped == 3
    assert len(task.contexts) == 3


def test_repeats_are_added_to_what_is_there(options):
    task = ToyTask()
    run(options, load=loader(task))
    assert run(replace(options, repeats=2), load=loader(task)).num_run == 1


@pytest.mark.parametrize(("limit", "images"), [(0.1, 5), (0.001, 1), (7, 7), (None, None)])
def test_a_limit_may_be_a_share(options, limit, images):
    task = Sized()
    (row, _) = run(replace(options, limit=limit), load=loader(task)).rows
    assert task.contexts[0].limit == row.limit == images
    assert row.limited == (limit is not None)


def test_a_share_needs_a_task_that_says_how_many_images_it_evaluates(options):
    with pytest.raises(UsageError, match=r"--limit 0\.1: toy does not say how many images it evaluates"):
        run(replace(options, limit=0.1), load=loader(ToyTask()))


@pytest.mark.parametrize("limit", [0.0, 1.0, 1.5, -0.5])
def test_shares_are_between_nothing_and_everything(options, limit):
    with pytest.raises(UsageError, match="--limit must be"):
        replace(options, limit=limit)


def states(options, *tasks):
    return [record["state"] for record in cell_states(build_grid(options, loader(*tasks)).cells, options)]


def test_a_dry_run_says_how_far_each_cell_is(options, save_checkpoint, tmp_path):
    tasks = ToyTask(), ToyTask(name="bad", fails=RuntimeError("no")), ToyTask(name="lost", hash="")
    options = replace(options, tasks=("toy", "bad", "lost"))
    assert states(options, *tasks) == ["to do", "to do", "would fail: the toy's data is missing"]
    assert not options.output_path.exists()
    run(options, load=loader(*tasks))
    assert states(options, *tasks)[:2] == ["finished", "failed before: RuntimeError: no"]
    assert states(replace(options, overwrite=True), *tasks)[0] == "finished, evaluated again by --overwrite"
    other = replace(options, ckpt=(save_checkpoint(tmp_path / "other", step=99),))
    assert states(other, *tasks)[0] == "not applicable: the toy wants another label"


def test_a_dry_run_says_where_an_interrupted_cell_goes_on(options):
    stopped = ToyTask(fails=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(options, load=loader(stopped))
    assert states(options, stopped) == ["interrupted, starts over"]
    (work,) = (options.output_path / "work").iterdir()
    (work / "interim.json").write_text(json.dumps({"iteration": 500}))
    assert states(options, stopped) == ["interrupted, goes on after pass 500"]


def test_the_list_of_a_dry_run_is_a_table(options):
    records = cell_states(build_grid(options, loader(ToyTask())).cells, options)
    header, rule, line = format_states(records).splitlines()
    assert len(header) == len(rule) == len(line)
    assert header.split("|")[1].strip() == "Checkpoint"
    assert "| to do |" in line


def test_a_dry_run_by_command(options, mae_checkpoint, capsys):
    words = ["run", "--ckpt", str(mae_checkpoint), "--tasks", "zs_retrieval", "--data-root", str(options.data_root)]
    assert main([*words, "--output-path", str(options.output_path), "--dry-run", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["state"] == "not applicable: the checkpoint has no text tower"
    assert not options.output_path.exists()


def test_finished_cells_are_overwritten_when_asked(options):
    task = ToyTask()
    run(options, load=loader(task))
    task.value = 0.25
    summary = run(replace(options, overwrite=True), load=loader(task))
    assert summary.num_run == 1
    assert summary.rows[0].value == 0.25
    assert run(options, load=loader(task)).rows[0].value == 0.25
    assert len(task.contexts) == 2


def test_a_run_notes_how_it_was_called(options, mae_checkpoint):
    row = run(options, load=loader(ToyTask())).rows[0]
    record = json.loads((options.output_path / "runs" / f"{row.run_id}.json").read_text())
    assert record["command"][:4] == ["evalharness", "run", "--ckpt", str(mae_checkpoint)]
    assert record["options"]["output_path"] == str(options.output_path)
    assert record["options"]["cluster.gpus"] == 1
    assert record["versions"] == row.versions
    assert record["hardware"] == row.hardware


def test_rows_say_what_they_cost_and_what_they_wrote(options):
    row = run(options, load=loader(ToyTask())).rows[0]
    assert row.peak_memory > 10 * 2**20
    assert row.batch_size == 0
    assert (options.output_path / row.files).is_file()
    hashes = json.loads((options.output_path / row.files).read_text())
    assert list(hashes) == [row.samples]


def test_a_batch_size_that_fits_is_in_the_row(options):
    class Large(ToyTask):
        def run(self, context):
            if (context.batch_size or 64) > 16:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().run(context)

    task = Large()
    (row, _) = run(options, load=loader(task)).rows
    assert row.batch_size == task.contexts[0].batch_size == 16
    (log,) = (options.output_path / "logs").iterdir()
    assert "out of memory with 64 images per pass (CUDA out of memory); trying 32" in log.read_text()


def test_the_time_that_is_left_is_that_of_the_same_protocol(options):
    task = ToyTask()
    grid = build_grid(replace(options, seeds=(0, 1, 2)), loader(task))
    session = open_session(options, grid, "r")
    (row, _) = run(options, load=loader(task)).rows
    rows = [replace(row, seconds=600.0)]
    assert remaining_words(grid.cells, [], session) == ""
    assert remaining_words(grid.cells, rows, session) == "about 30 min left for 3 tasks"
    assert remaining_words(grid.cells, [*rows, replace(row, metric="toy.loss", main=False)], session) == (
        "about 20 min left for 2 tasks"
    )
    other = build_grid(replace(options, tasks=("toy", "other")), loader(task, ToyTask(name="other"))).cells
    assert remaining_words(other, rows, session) == "about 10 min left for 1 task, beside 1 that nothing is known of"
    assert [in_words(seconds) for seconds in (40.0, 840.0, 12600.0)] == ["40 s", "14 min", "3.5 h"]


def test_options_from_a_file_stand_behind_those_of_the_command_line(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('ckpt = ["a", "b"]\nlimit = 0.5\nprogress = false\njson = true\n[cluster]\nmem_gb = 2\n')
    assert with_config(["--config", str(file), "--limit", "3"]) == [
        "--ckpt", "a,b", "--limit", "0.5", "--no-progress", "--json", "--cluster.mem-gb", "2",
        "--config", str(file), "--limit", "3",
    ]  # fmt: skip
    assert with_config(["--limit", "3"]) == ["--limit", "3"]
    assert with_config([f"--config={file}"])[:2] == ["--ckpt", "a,b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ckpt =", "is not TOML: "),
        ("ckpt = 1979-05-27", "ckpt is datetime.date"),
        ('data_root = "d"\noutput_path = "o"\nckpt = "c"\nsead = 3', "unknown option --sead; did you mean --seeds?"),
        (None, "No such file"),
    ],
)
def test_a_file_of_options_that_cannot_be_is_bad_input(tmp_path, capsys, text, message):
    file = tmp_path / "run.toml"
    if text is not None:
        file.write_text(text)
    assert main(["run", "--config", str(file)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_in_order(
    options, flip_checkpoint, caption_shards, monkeypatch, capsys, request, number, code
):
    from unveil_evalharness.tasks.zs_retrieval.task import ZeroShotRetrieval

    def signalled(*args):
        os.kill(os.getpid(), number)
        # Another thread may be the one that the signal wakes: the handler then runs between two of these.
        for _ in range(600):
            time.sleep(0.05)
        raise AssertionError("no handler ran")

    # A shell's background job, such as a test run may be, ignores SIGINT and hands that on.
    request.addfinalizer(
        partial(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
    )
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(ZeroShotRetrieval, "run", signalled)
        words = ["run", "--ckpt", str(flip_checkpoint), "--tasks", "zs_retrieval", "--data-root", str(caption_shards)]
        assert main([*words, "--output-path", str(options.output_path), "--device", "cpu", "--no-progress"]) == code
    assert signal.getsignal(signal.SIGTERM) == before
    assert "interrupted; finished tasks are kept" in capsys.readouterr().err
    assert [path.suffix for path in (options.output_path / "work").iterdir()] == [""]


@pytest.mark.mm
def test_a_trained_task_has_no_spread_on_a_cpu(options):
    task = LineTask()
    options = replace(options, tasks=("line",), repeats=2)
    run(options, load=loader(task))
    assert task.passes == 24
    (spread,) = spreads(read_rows(options.output_path / "results.jsonl"))
    assert (len(spread.values), spread.width) == (2, 0.0)
    assert spread.row.batch_size == 4


@pytest.mark.mm
def test_a_trained_task_that_does_not_fit_trains_in_smaller_passes_over_the_same_images(options):
    passes = []

    class Large(LineTask):
        def run(self, context):
            passes.append(context.batch_size)
            if context.batch_size is None:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().run(context)

    task = Large()
    (row,) = run(replace(options, tasks=("line",)), load=loader(task)).rows
    assert passes == [None, 2]
    assert (row.batch_size, task.passes) == (2, 2 * 12)
