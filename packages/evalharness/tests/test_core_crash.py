"""SIGKILL at any moment: finished tasks are kept, the interrupted one goes on, the numbers are those of a whole run."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from killed_runs import MOMENTS, options_for
from line_training import LineTask
from toy_task import ToyTask, loader
from unveil_evalharness.errors import DataError, DivergedError
from unveil_evalharness.results import latest, read_rows
from unveil_evalharness.run import run

pytestmark = pytest.mark.mm

HELPERS = Path(__file__).with_name("helpers")


@pytest.fixture(scope="module")
def killed(mae_checkpoint, tmp_path_factory):
    """Options of a run for each moment at which it was killed."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "data").mkdir()
    words = [sys.executable, str(HELPERS / "killed_runs.py"), str(mae_checkpoint), str(folder / "data"), str(folder)]
    done = subprocess.run(
        words, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name: options_for(mae_checkpoint, folder / "data", folder / name) for name in MOMENTS}


@pytest.fixture(scope="module")
def whole(mae_checkpoint, tmp_path_factory):
    """The rows of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    options = options_for(mae_checkpoint, folder, folder / "out")
    return run(options, load=loader(ToyTask(), LineTask())).rows


@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_killed_run_goes_on_to_the_same_numbers(killed, whole, moment):
    options = killed[moment]
    toy, line = ToyTask(), LineTask()
    again = run(options, load=loader(toy, line))
    assert toy.contexts == []
    assert line.passes == MOMENTS[moment][2]
    rows = read_rows(options.output_path / "results.jsonl")
    assert [(row.metric, row.value) for row in again.rows] == [(row.metric, row.value) for row in whole]
    assert latest(rows) == rows
    assert list((options.output_path / "work").iterdir()) == []


class Unlucky(LineTask):
    """Trains, and then finds that something is wrong."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def run(self, context):
        super().run(context)
        raise self.error


@pytest.mark.parametrize("error", [DataError("image 7 is damaged"), MemoryError(), RuntimeError("a bug")])
def test_a_failure_does_not_cost_the_training(options, whole, error):
    options = replace(options, tasks=("line",), batch_size=4)
    summary = run(options, load=loader(Unlucky(error)))
    assert summary.rows[0].status == "failed"
    line = LineTask()
    (row,) = run(options, load=loader(line)).rows
    assert line.passes == 0
    assert row.value == whole[-1].value


def test_a_loss_that_diverged_starts_over(options):
    options = replace(options, tasks=("line",))
    run(options, load=loader(Unlucky(DivergedError("the loss is not finite"))))
    assert list((options.output_path / "work").iterdir()) == []


def test_a_damaged_interim_checkpoint_costs_the_training_but_not_the_numbers(options, whole, capsys):
    options = replace(options, tasks=("line",))
    run(options, load=loader(Unlucky(RuntimeError("a bug"))))
    (file,) = (options.output_path / "work").glob("line-*/interim-*.pth")
    file.write_bytes(file.read_bytes()[:-100])
    line = LineTask()
    (row,) = run(options, load=loader(line)).rows
    assert line.passes == 12
    assert row.value == whole[-1].value
    assert "the interim checkpoint is not used, training starts over" in capsys.readouterr().err
    (log,) = (options.output_path / "logs").glob("line-*.log")
    assert "is damaged: its SHA-256" in log.read_text()


def test_training_logs_end_in_the_log_of_the_cell(options):
    run(replace(options, tasks=("line",)), load=loader(LineTask()))
    (log,) = (options.output_path / "logs").iterdir()
    assert "loss" in log.read_text()
