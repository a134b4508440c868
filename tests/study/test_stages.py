"""The study as a whole: grids of the promised size, commands that exist, stops at a deadline, and the page."""

import json
import sys
import time

import pytest
from unveil_evalharness.errors import UsageError
from unveil_evalharness.options import RunOptions
from unveil_evalharness.parsing import parse_options

from demo.real_data import RealDataError
from study.__main__ import main, run_stage
from study.layout import lay_out_study
from study.page import write_page
from study.profiles import PROFILES
from study.stages import Stage, flip_cells, mim_checkpoints, plan_of, stages_of


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_grid_has_at_least_36_checkpoints_and_two_seeds(name):
    profile = PROFILES[name]
    cells = plan_of(profile).cells
    assert len(cells) >= 36
    assert len({cell.settings["encoder"] for cell in cells}) >= 3
    assert {cell.fraction for cell in cells} == {0.1, 0.2, 0.5, 1.0}
    assert len({cell.steps for cell in cells}) >= 3
    assert len(profile.seeds) >= 2
    assert len(profile.encoders) == len(profile.base_lrs)


def stages(tmp_path, profile=PROFILES["smoke"]):
    (tmp_path / "root" / "imagenet" / "val").mkdir(parents=True)
    return stages_of(profile, tmp_path / "root", tmp_path)


def test_the_stages_are_commands_of_the_packages_in_their_order(tmp_path):
    words = [stage.words() for stage in stages(tmp_path)]
    assert [line[2:4] for line in words[:5]] == [
        ("unveil_pretrain", "sweep"), ("unveil_evalharness", "run"), ("unveil_evalharness", "run"),
        ("unveil_pretrain", "flip-ablation"), ("unveil_evalharness", "run"),
    ]  # fmt: skip
    assert words[-1][2:4] == ("unveil_evalharness", "report")


def test_the_evaluations_are_understood(tmp_path):
    for name in (plan_of(PROFILES["smoke"]).cells[0].name, "../../flip/cells/mask0_seed0"):
        (tmp_path / "mim" / "cells" / name / "checkpoints").mkdir(parents=True)
    evaluations = [stage.words() for stage in stages(tmp_path) if stage.words()[3] == "run"]
    assert len(evaluations) == 3
    for words in evaluations:
        options = parse_options(RunOptions, "run", words[4:])
        assert options.suite == "quick"
        assert options.limit == 8
    with pytest.raises(UsageError, match="no-such-flag"):
        parse_options(RunOptions, "run", [*evaluations[0][4:], "--no-such-flag"])


def test_runs_with_checkpoints_are_found(tmp_path):
    plan = plan_of(PROFILES["smoke"])
    for cell in plan.cells[:2]:
        (tmp_path / "mim" / "cells" / cell.name / "checkpoints").mkdir(parents=True)
    (tmp_path / "flip" / "cells" / "mask0_seed0" / "checkpoints").mkdir(parents=True)
    assert [folder.name for folder in mim_checkpoints(plan, tmp_path)] == [cell.name for cell in plan.cells[:2]]
    assert [folder.name for folder in flip_cells(tmp_path)] == ["mask0_seed0"]


def python(code, tmp_path, output=None):
    return Stage(
        name="a stage", words=lambda: (sys.executable, "-c", code), log=tmp_path / "logs" / "a.log", output=output
    )


def test_a_stage_is_asked_to_stop_at_the_deadline_and_may_save(tmp_path):
    code = (
        "import signal, sys, time, pathlib\n"
        f"place = pathlib.Path({str(tmp_path)!r})\n"
        "def stop(*_):\n    (place / 'saved').touch()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n(place / 'started').touch()\ntime.sleep(60)\n"
    )
    start = time.monotonic()
    assert run_stage(python(code, tmp_path), start + 3.0) is None
    assert time.monotonic() - start < 30
    assert (tmp_path / "started").exists()
    assert (tmp_path / "saved").exists()
    assert run_stage(python("raise SystemExit(0)", tmp_path), time.monotonic()) is None


def test_output_is_kept_of_commands_that_end_well_or_have_nothing_to_compare(tmp_path):
    kept = tmp_path / "kept.json"
    assert run_stage(python("print('{}')", tmp_path, kept), None) == 0
    assert kept.read_text() == "{}\n"
    assert run_stage(python("print('broken'); raise SystemExit(4)", tmp_path, kept), None) == 4
    assert kept.read_text() == "{}\n"
    assert run_stage(python("print('refused'); raise SystemExit(3)", tmp_path, kept), None) == 0
    assert kept.read_text() == "refused\n"


def test_a_folder_without_the_sets_is_refused_by_name(tmp_path, capsys):
    with pytest.raises(RealDataError, match="holds no imagenet"):
        lay_out_study(tmp_path, tmp_path / "root")
    assert not (tmp_path / "root").exists()
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "study: error" in capsys.readouterr().err


def stratum(metric, main_metric=True):
    estimate = {"value": -0.8, "low": -0.9, "high": -0.6}
    gained = {"low": 0.5, "high": 1.0}
    return {
        "column": {"metric": metric, "main": main_metric}, "refusal": None, "answer": f"{metric} follows the loss.",
        "statistics": {"n": 36, "pearson": estimate, "spearman": estimate},
        "verdict": {"code": "usable one-sided"},
        "study": {
            "steps": {
                "falling": {"num_steps": 4, "num_gained": 3, "gained": gained},
                "rising": {"num_steps": 0, "num_gained": 0, "gained": gained},
            },
            "forecasts": [
                {
                    "model": "linear", "known": ["x"], "left_out": "model", "mean_absolute_error": 0.5,
                    "coverage": 0.9, "coverage_interval": {"low": 0.8, "high": 0.96},
                }
            ],
        },
    }  # fmt: skip


def test_the_page_has_every_main_metric_with_its_interval(tmp_path):
    why = {"reason": "too_few_points", "text": "3 checkpoints, at least 5 are needed"}
    refused = {
        **stratum("ade20k_seg.mIoU"),
        "statistics": None,
        "refusal": why,
        "answer": "No correlation.",
        "study": None,
    }
    found = {"strata": [stratum("imagenet_ft.acc1"), stratum("imagenet_ft.acc5", main_metric=False), refused]}
    (tmp_path / "correlate.json").write_text(json.dumps(found))
    (tmp_path / "flip").mkdir()
    (tmp_path / "flip" / "tables.md").write_text("**All cells**\n")
    page = write_page(PROFILES["smoke"], tmp_path, seconds=60.0).read_text()
    both = "-0.80 [-0.90, -0.60]"
    row = f"| imagenet_ft.acc1 | 36 | {both} | {both} | usable one-sided | 0.5 (model left out) | 90% [80%, 96%] |"
    assert row in page
    assert "imagenet_ft.acc5" not in page
    assert "| ade20k_seg.mIoU | | | | refused: 3 checkpoints, at least 5 are needed | | |" in page
    assert "- imagenet_ft.acc1 follows the loss." in page
    assert "No correlation." not in page
    assert "| imagenet_ft.acc1 | 3 of 4 [50%, 100%] | no such step |" in page
    assert "beside the 63 published runs" in page
    assert "**All cells**" in page
    assert "Not correlated: not run yet." in page
    assert "No run has finished." in page
