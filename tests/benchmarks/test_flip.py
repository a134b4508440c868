"""The benchmark of FLIP's whole step runs end to end with tiny models, and compares before it times."""

import json

import pytest
from unveil_pretrain.contrastive import info_nce

from benchmarks import _clip, flip
from benchmarks._device import open_device
from benchmarks._steps import Work


@pytest.fixture
def work():
    return Work(device=open_device("cpu"), batch=2, autocast=False, quick=True)


def test_every_row_runs(tmp_path, capsys):
    file = tmp_path / "figures.json"
    rows = ["--only", "step", "loss", "own"]
    assert flip.main(["--quick", "--rounds", "1", "--warm-up", "0", "--batch", "2", *rows, "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("CLIP step of a tiny pair") == 3
    assert shown.count("of an ideal") == 2
    assert "InfoNCE of a global batch of 256" in shown
    assert json.loads(file.read_text())


def test_captions_have_about_twenty_pieces_and_one_end():
    rows = _clip.Captions(200, 77, 100).rows
    lengths = (rows != 0).sum(1)
    assert 19 < lengths.float().mean() < 21
    assert (rows.argmax(1) == lengths - 1).all()  # where open_clip reads the caption
    assert (rows[:, 0] == 98).all()


def test_the_ideal_is_that_of_the_operations(work):
    assert 1.0 < _clip.ideal_ratio(work, 0.5) < _clip.ideal_ratio(work, 0.75) < 4.0


def test_another_loss_is_not_timed(monkeypatch, capsys):
    monkeypatch.setattr(flip, "info_nce", lambda images, texts, scale: 1.01 * info_nce(images, texts, scale))
    assert flip.main(["--quick", "--rounds", "1", "--warm-up", "0", "--only", "loss"]) == 1
    assert "differ by" in capsys.readouterr().err
