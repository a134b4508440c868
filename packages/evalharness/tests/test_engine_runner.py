"""Training on mmengine's Runner: learns, resumes exactly, leaves nothing behind."""

import multiprocessing
import random
import sys

import numpy as np
import pytest
import torch
from line_training import Line
from line_training import train_line as run
from unveil_evalharness.engine.runner import DivergedError
from unveil_evalharness.engine.stream import seed_globals
from unveil_evalharness.errors import BatchTooLargeError, DataError

pytestmark = pytest.mark.mm


def draw():
    """One number of each global generator."""
    return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002


def test_training_lowers_the_error_and_logs_to_a_file_only(tmp_path, capfd):
    untrained, _ = run(tmp_path / "short", max_iters=6)
    trained, _ = run(tmp_path / "long", max_iters=60)
    assert trained["error"] < 0.3 * untrained["error"]
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""
    log = (tmp_path / "long" / "train.log").read_text()
    assert "loss" in log
    assert list((tmp_path / "long").glob("*/vis_data/*.json"))


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(tmp_path):
    first, weights = run(tmp_path / "a", max_iters=8)
    second, same = run(tmp_path / "b", max_iters=8)
    _, other = run(tmp_path / "c", max_iters=8, seed=1)
    assert first == second
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert not torch.equal(weights["head.weight"], other["head.weight"])


def test_two_runs_in_one_process_leave_no_state_behind(tmp_path):
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    managers = (MMLogger, MessageHub, Visualizer, DefaultScope)
    before = [dict(manager._instance_dict) for manager in managers]
    seed_globals(5)
    expected = draw()
    seed_globals(5)
    run(tmp_path / "a", max_iters=6)
    run(tmp_path / "b", max_iters=6)
    assert draw() == expected
    assert [dict(manager._instance_dict) for manager in managers] == before
    assert sys.stdout is not None
    assert not (tmp_path / "a" / "interim.json").exists()


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path):
    whole, weights = run(tmp_path / "whole", max_iters=12)
    with pytest.raises(DivergedError, match="not finite"):
        run(tmp_path / "broken", max_iters=12, checkpoint_interval=5, explode_at=8)
    assert list((tmp_path / "broken").glob("interim-*")) == [tmp_path / "broken" / "interim-00000005.pth"]
    resumed, same = run(tmp_path / "broken", max_iters=12, checkpoint_interval=5)
    assert "resumed after pass 5" in (tmp_path / "broken" / "train.log").read_text()
    assert resumed == whole
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_a_loss_that_is_not_a_number_stops_the_run_with_step_and_rate(tmp_path):
    with pytest.raises(DivergedError, match=r"training pass 2 is not finite .*learning rate"):
        run(tmp_path, max_iters=8, explode_at=3)


def test_accumulated_passes_train_as_one_step_does(tmp_path):
    # Dropout is drawn pass by pass, so it is left out here.
    whole, weights = run(tmp_path / "whole", max_iters=30, dropout=0.0)
    split, same = run(tmp_path / "split", max_iters=30, accumulate=2, dropout=0.0)
    assert split["error"] == pytest.approx(whole["error"], rel=1e-4)
    assert all(torch.allclose(weights[name], same[name], atol=1e-5) for name in weights)


class Broken(Line):
    def __getitem__(self, index):
        if index == 7:
            raise DataError("cannot decode 7.jpg; replace the file")
        return super().__getitem__(index)


def test_loader_processes_change_nothing_and_end_with_the_training(tmp_path):
    whole, _ = run(tmp_path / "whole", max_iters=6)
    split, _ = run(tmp_path / "split", max_iters=6, num_workers=1)
    assert split == whole
    assert multiprocessing.active_children() == []


def test_an_error_in_a_loader_process_is_one_line(tmp_path):
    with pytest.raises(DataError) as caught:
        run(tmp_path, dataset=Broken(), max_iters=6, num_workers=1)
    assert str(caught.value) == "cannot decode 7.jpg; replace the file"


class Huge(Line):
    def __getitem__(self, index):
        raise MemoryError


def test_memory_that_runs_out_names_the_batch_to_try(tmp_path):
    with pytest.raises(BatchTooLargeError, match="passes of 4 images do not fit: MemoryError") as caught:
        run(tmp_path, dataset=Huge(), max_iters=6)
    assert caught.value.fitting == 2
