"""Interim checkpoints: a run that goes on from one equals a whole run, and a damaged one is recognised."""

import json
import os

import pytest
import torch
from line_training import train_line
from unveil_evalharness.engine.interim import has_interim, read_interim, write_interim
from unveil_evalharness.engine.optim import OptimiserSettings
from unveil_evalharness.engine.runner import DivergedError, TrainingPlan
from unveil_evalharness.errors import OutputError

STATE = {"iteration": 5, "state_dict": {"weight": torch.arange(3.0)}, "optimizer": {"lr": [0.1]}}


def test_what_was_written_is_read(tmp_path):
    assert not has_interim(tmp_path)
    assert read_interim(tmp_path, plan="p").state is None
    write_interim(tmp_path, STATE, iteration=5, plan="p")
    found = read_interim(tmp_path, plan="p")
    assert has_interim(tmp_path)
    assert found.state is not None
    assert found.state["optimizer"] == STATE["optimizer"]
    assert torch.equal(found.state["state_dict"]["weight"], STATE["state_dict"]["weight"])


def test_only_the_newest_is_kept(tmp_path):
    for iteration in (5, 10):
        write_interim(tmp_path, STATE, iteration=iteration, plan="p")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["interim-00000010.pth", "interim.json"]


def truncate(folder):
    file = folder / "interim-00000005.pth"
    file.write_bytes(file.read_bytes()[:-20])


def alter(folder):
    file = folder / "interim-00000005.pth"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def lose(folder):
    (folder / "interim-00000005.pth").unlink()


def garble(folder):
    (folder / "interim.json").write_text("{")


def forget(folder):
    (folder / "interim.json").write_text(json.dumps({"file": "interim-00000005.pth"}))


class Planted:
    def __reduce__(self):
        return (os.mkdir, ("planted",))


def plant(folder):
    """A pickle with code in it, and a pointer that vouches for it."""
    write_interim(folder, {"x": Planted()}, iteration=5, plan="p")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "damaged: its SHA-256"),
        (alter, "damaged: its SHA-256"),
        (lose, "cannot be read"),
        (garble, "interim.json is damaged"),
        (forget, "interim.json is damaged"),
        (plant, "cannot be read"),
    ],
)
def test_a_damaged_one_is_refused_with_its_reason(tmp_path, monkeypatch, damage, reason):
    monkeypatch.chdir(tmp_path)
    write_interim(tmp_path, STATE, iteration=5, plan="p")
    damage(tmp_path)
    found = read_interim(tmp_path, plan="p")
    assert found.state is None
    assert reason in found.refused
    assert not (tmp_path / "planted").exists()


def test_another_plan_does_not_go_on_from_it(tmp_path):
    write_interim(tmp_path, STATE, iteration=5, plan="p")
    found = read_interim(tmp_path, plan="q")
    assert (found.state, found.refused) == (None, "it was written by another plan (p; now q)")


def test_a_full_disk_leaves_the_earlier_one(tmp_path, monkeypatch):
    write_interim(tmp_path, STATE, iteration=5, plan="p")

    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match=r"interim-00000010\.pth: No space left"):
        write_interim(tmp_path, STATE, iteration=10, plan="p")
    assert read_interim(tmp_path, plan="p").state is not None
    assert not list(tmp_path.glob("*.tmp"))


def test_intervals():
    def interval(**fields):
        return TrainingPlan(optimiser=OptimiserSettings(lr=0.1), **fields).interim_interval

    assert interval(max_iters=20) == 0
    assert interval(max_iters=50) == 20
    assert interval(max_iters=160_000) == 8_000
    assert interval(max_iters=160_000, checkpoint_interval=0) == 0
    assert interval(max_iters=10, checkpoint_interval=5) == 5


@pytest.mark.mm
@pytest.mark.parametrize("options", [{"ema_decay": 0.9}, {"accumulate": 2}], ids=["average", "accumulated"])
def test_a_resumed_run_equals_a_whole_one(tmp_path, options):
    whole, weights = train_line(tmp_path / "whole", max_iters=12, **options)
    passes = options.get("accumulate", 1)
    with pytest.raises(DivergedError):
        train_line(tmp_path / "broken", max_iters=12, checkpoint_interval=5, explode_at=8 * passes, **options)
    resumed, same = train_line(tmp_path / "broken", max_iters=12, checkpoint_interval=5, **options)
    assert f"resumed after pass {5 * passes}" in (tmp_path / "broken" / "train.log").read_text()
    assert resumed == whole
    assert all(torch.equal(weights[name], same[name]) for name in weights)


@pytest.mark.mm
def test_a_run_killed_while_it_evaluates_does_not_train_again(tmp_path):
    whole, weights = train_line(tmp_path, max_iters=7, checkpoint_interval=5)
    # A pass of training would raise; only the evaluation is left.
    again, same = train_line(tmp_path, max_iters=7, checkpoint_interval=5, explode_at=1)
    assert again == whole
    assert all(torch.equal(weights[name], same[name]) for name in weights)


@pytest.mark.mm
def test_training_starts_over_where_the_checkpoint_is_damaged_and_says_so(tmp_path, capsys):
    whole, _ = train_line(tmp_path, max_iters=7, checkpoint_interval=5)
    file = tmp_path / "interim-00000007.pth"
    file.write_bytes(file.read_bytes()[:100])
    again, _ = train_line(tmp_path, max_iters=7, checkpoint_interval=5)
    assert again == whole
    words = "the interim checkpoint is not used, training starts over: interim-00000007.pth is damaged"
    assert words in (tmp_path / "train.log").read_text()
    assert words in capsys.readouterr().err


@pytest.mark.mm
def test_another_batch_size_starts_over(tmp_path, capsys):
    train_line(tmp_path, max_iters=7, checkpoint_interval=5)
    train_line(tmp_path, max_iters=7, checkpoint_interval=5, accumulate=2)
    assert "7 steps of 1 x 4 images" in capsys.readouterr().err
