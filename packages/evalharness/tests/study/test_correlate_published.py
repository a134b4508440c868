"""What `evalharness correlate --published` prints, and that it needs no torch."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from unveil_evalharness.cli import main


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """The text and the JSON of the 63 runs, each from one call."""
    import contextlib
    import io

    texts = {}
    for name, extra in (("text", []), ("json", ["--json"])):
        stream = io.StringIO()
        with contextlib.redirect_stdout(stream):
            assert main(["correlate", "--published", "xie2023", "--num-resamples", "500", *extra]) == 0
        texts[name] = stream.getvalue()
    return texts


def line_of(text: str, *words: str) -> str:
    return next(line for line in text.splitlines() if all(word in line for word in words))


def test_the_known_coefficients_are_printed(printed) -> None:
    text = printed["text"]
    assert "n = 63" in text
    assert line_of(text, "Pearson ", "−0.786")
    assert line_of(text, "Spearman ", "−0.897")
    assert line_of(text, "Kendall ", "−0.746")
    assert {"36", "−0.956", "−0.974"} <= set(line_of(text, "pairs that never over-fit").split())
    assert {"9", "+0.548"} <= set(line_of(text, "ImageNet-1K 10%").split())
    assert "28 of 28 falling steps gained (88 to 100 %), 7 of 14 rising steps did (27 to 73 %)" in text
    assert "the validation loss adds 0.285" in text
    assert line_of(text, "linear", "0.616", "83 %")
    assert "the validation loss of runs on IN22K lies +0.0022" in text
    assert "+0.0029 in validation loss and −0.09 in value (12 pairs)" in text


def test_a_set_in_percent_says_so(printed, capsys) -> None:
    assert "Values in percent, so that changes are percentage points: imagenet_ft.acc1." in printed["text"]
    assert "Regret in percent" in printed["text"]
    assert json.loads(printed["json"])["strata"][0]["column"]["unit"] == "percent"
    assert main(["correlate", "--published", "flip2023", "--num-resamples", "200"]) == 0
    assert "percentage points" not in capsys.readouterr().out  # CIDEr is among its metrics


def test_the_verdict_is_one_sided(printed) -> None:
    assert "Verdict: The validation loss is usable one-sided for imagenet_ft.acc1" in printed["text"]
    (stratum,) = json.loads(printed["json"])["strata"]
    assert stratum["verdict"]["code"] == "usable one-sided"
    assert [one["holds"] for one in stratum["verdict"]["criteria"]] == [True, True, None, True, False]


def test_json_holds_what_the_text_says(printed) -> None:
    (stratum,) = json.loads(printed["json"])["strata"]
    assert round(stratum["statistics"]["pearson"]["value"], 3) == -0.786
    assert stratum["statistics"]["num_groups"] == 5
    parts = {part["name"]: part for part in stratum["study"]["parts"]}
    assert round(parts["ImageNet-1K 10%"]["pearson"]["value"], 3) == 0.548
    assert parts["over-fitted runs"]["n"] == 14
    assert stratum["study"]["steps"]["falling"]["num_gained"] == 28
    assert len(stratum["points"]) == 63
    assert {one["model"] for one in stratum["study"]["forecasts"]} == {"linear", "isotonic", "hierarchical"}


def test_flip_relates_zero_shot_to_transfer(capsys) -> None:
    assert main(["correlate", "--published", "flip2023", "--num-resamples", "200"]) == 0
    text = capsys.readouterr().out
    assert line_of(text, "imagenet_ft.acc1", "imagenet_zs.acc1", " 9 ")
    # Nine runs of six pairs of model and data: the coefficient is high, and yet little is known.
    assert "whether imagenet_zs.acc1 ranks imagenet_ft.acc1 (Spearman 0.91, 95 % interval over 6 groups" in text
    assert "47 metrics: fewer than 5 runs each" in text
    assert main(["correlate", "--published", "flip2023", "--y", "mnist_zs.acc"]) == 3
    assert "4 checkpoints, at least 5 are needed" in capsys.readouterr().out


def test_figures_are_drawn_and_other_endings_refused(tmp_path: Path, capsys) -> None:
    for name in ("runs.svg", "runs.png"):
        arguments = ["correlate", "--published", "xie2023", "--num-resamples", "100", "--figure", str(tmp_path / name)]
        assert main(arguments) == 0
    assert (
        "over-fitted (open)" in (tmp_path / "runs.svg").read_text() or b"<svg" in (tmp_path / "runs.svg").read_bytes()
    )
    assert (tmp_path / "runs.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["correlate", "--published", "xie2023", "--figure", "runs.bmp"]) == 2
    assert main(["correlate", "--published", "xie2023", "--figure", str(tmp_path / "no" / "x.png")]) == 2
    assert "choose another --figure" in capsys.readouterr().err


def test_a_set_and_results_are_not_mixed(tmp_path: Path, capsys) -> None:
    assert main(["correlate", str(tmp_path), "--published", "xie2023"]) == 2
    assert "not both" in capsys.readouterr().err
    assert main(["correlate", "--published", "xie"]) == 2
    assert "xie2023" in capsys.readouterr().err


def test_published_sets_need_neither_torch_nor_scipy_and_little_time() -> None:
    code = (
        "import sys\nfrom unveil_evalharness.cli import main\nmain(['correlate', '--published', 'xie2023', '--json'])\n"
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert spent < 6  # under 2 s on a free core; the bound leaves room for a busy machine, not for torch
    loaded = set(process.stderr.split())
    assert "polars" in loaded
    assert not {"torch", "scipy", "timm", "matplotlib", "mmengine"} & loaded
