"""`python -m benchmarks.harness` trains by both loops, and refuses models that are not the same."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import harness

pytest.importorskip("mmseg")
pytestmark = [pytest.mark.mm, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def scenes(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for number in range(8 if split == "training" else 2):
            labels = np.ones((64, 64), np.uint8)
            labels[10:40, 10:40] = 2
            pixels = np.where(labels[..., None] == 2, 200, rng.integers(0, 99, (64, 64, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{number}.png")
            Image.fromarray(labels).save(root / "annotations" / split / f"{number}.png")
    return root


def quick(folder, *more):
    return harness.main(
        ["--ade20k", str(folder), "--steps", "2", "--val-images", "1", "--rounds", "1", "--warm-up", "0", *more]
    )


def test_both_loops_run(tmp_path, capsys):
    assert quick(scenes(tmp_path / "scenes"), "--json", str(tmp_path / "figures.json")) == 0
    printed = capsys.readouterr().out
    assert "bare mmseg" in printed
    assert "of the bare loop's CPU time" in printed
    outcome = json.loads((tmp_path / "figures.json").read_text())["outcomes"][0]
    assert outcome["ratios"][0]["difference"] == 0.0
    assert outcome["ratios"][0]["bar"] == 0.971
    assert all(timing["cpu"][0] > 0 for timing in outcome["timings"])


def test_other_models_end_the_run(tmp_path, capsys, monkeypatch):
    losses = iter([1.0, 2.0])
    monkeypatch.setattr(harness, "first_loss", lambda make: next(losses))
    assert quick(scenes(tmp_path / "scenes")) == 1
    assert "bare mmseg" in capsys.readouterr().err


def test_no_data_is_said(capsys):
    assert harness.main([]) == 2
    assert "name data" in capsys.readouterr().err
