"""`evalharness predict` as a user calls it."""

import json
import subprocess
import sys

import pytest
from unveil_evalharness.cli import main

ASKED = ("predict", "--published", "xie2023", "--run", "SwinV2-B IN1K-50% 250k")


def test_words_interval_and_decision(capsys):
    assert main([*ASKED, "--margin", "0.6"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("SwinV2-B IN1K-50% 250k: imagenet_ft.acc1 84.412 [83.853, 84.971] (percent, 90 % interval)")
    assert "Measured: 84.570, inside the interval" in out
    assert "Decision: skip the fine-tuning" in out


def test_json_holds_everything(capsys):
    assert main([*ASKED, "--at-steps", "500000", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["forecast"]["at_steps"] == 500_000
    assert record["forecast"]["low"] < record["measured"] < record["forecast"]["high"]
    assert len(record["forecast"]["neighbours"]) == 3
    assert record["decision"] is None


def test_figures_are_written(tmp_path, capsys):
    folder = tmp_path / "figures"
    assert main([*ASKED, "--figures", str(folder), "--num-resamples", "20"]) == 0
    names = {path.name for path in folder.iterdir()}
    assert names == {f"{n}.{s}" for n in ("forecast", "scaling_law", "overfitting_boundary") for s in ("svg", "png")}
    assert all(path.stat().st_size > 1000 for path in folder.iterdir())
    assert "figure: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "x"], "give either --known OUT[,OUT] or --published NAME"),
        (["--published", "xie2023"], "nothing to do"),
        (["--published", "xie2024", "--run", "x"], "did you mean xie2023?"),
        (["--published", "flip2023", "--run", "x"], "holds no validation losses"),
        (["--published", "xie2023", "--run", "x", "--task", "coco_det"], "has no metric 'coco_det.acc1'"),
        (["--published", "xie2023", "--run", "x"], "names 0 of the 63 known runs"),
        (["--published", "xie2023", "--run", "x", "--level", "1"], "--level must be at least 0.5 and below 1"),
        (["--known", "/nowhere", "--run", "x"], "no output folder at /nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments, words, capsys):
    assert main(["predict", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_needs_no_torch():
    code = (
        "import sys; from unveil_evalharness.cli import main;"
        "assert main(['predict','--published','xie2023','--run','SwinV2-B IN1K-50% 250k']) == 0;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
