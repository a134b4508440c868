"""More of `test_found.py`: numbers without end, values of other types, names of no file, in runs, sweeps and gates."""

import contextlib
import dataclasses
import hashlib
import json
import math
import shutil
from random import Random

import numpy as np
import polars
import pytest
import torch
from fuzzing import tree_of
from mutations import mutated_bytes
from unveil_backbones.limits import parse_toml
from unveil_evalharness.compare.outcomes import mean_outcomes
from unveil_evalharness.errors import GateFileError, ResultsError, UsageError
from unveil_evalharness.errors import OutputError as HarnessOutputError
from unveil_evalharness.executing.dispatch import _noted
from unveil_evalharness.gate.baseline import read_baseline
from unveil_evalharness.gate.policy import read_policy
from unveil_evalharness.parsing import parse_options, with_config
from unveil_evalharness.plan_table import _interrupted
from unveil_evalharness.report.command import ReportOptions
from unveil_evalharness.report.command import main as report
from unveil_evalharness.results import read_rows
from unveil_evalharness.verify.contents import check_files
from unveil_evalharness.verify.provenance import check_checkpoints
from unveil_pretrain.ablation.cells import Cell, Shape
from unveil_pretrain.ablation.plan import Places, seconds_of_steps
from unveil_pretrain.ablation.results import read_scores
from unveil_pretrain.ablation.study import Ablation
from unveil_pretrain.config import config_to_json
from unveil_pretrain.errors import ConfigError, OutputError, ResumeError
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES
from unveil_pretrain.replay import replay
from unveil_pretrain.row_checks import is_number
from unveil_pretrain.status import status_of, words_of
from unveil_pretrain.stored_config import config_from_json
from unveil_pretrain.sweeping.folder import SweepFolder
from unveil_pretrain.sweeping.table import read_rows as rows_of_sweep
from unveil_pretrain.sweeping.table import table


@pytest.fixture
def run(place):
    shutil.copytree(place.good / "image" / "run", place.scratch / "run")
    return place.scratch / "run"


def changed(file, number, **values):
    """Change columns of one row of a .jsonl file."""
    rows = tree_of(file)
    rows[number] |= values
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(("value", "fits"), [(1e308, False), (-1e308, False), (1e99, True), (2**63, False), (0, True)])
def test_a_number_whose_quotients_have_no_end_is_none(value, fits):
    assert is_number(value) is fits


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_column_may_have_no_finite_value_where_that_is_said(value):
    assert is_number(value, finite=False)
    assert not is_number(value)


def test_seconds_that_would_leave_the_time_left_without_end(run):
    changed(run / "metrics.jsonl", 1, seconds=1e308)
    words = "\n".join(words_of(status_of(run)))
    assert "1 line of its logs left out" in words
    assert "line 2 has seconds 1e+308, which is no number" in words


@pytest.mark.parametrize("column", ["epoch", "samples_seen", "loss", "lr"])
def test_a_null_of_the_last_step(run, column):
    changed(run / "metrics.jsonl", -1, **{column: None})
    assert any("epochs over the data" in line for line in words_of(status_of(run)))


def test_a_null_number_of_masks(run):
    changed(run / "val.jsonl", -1, num_masks=None)
    assert any("1 mask each" in line for line in words_of(status_of(run)))


def test_a_line_that_is_a_list(run):
    with (run / "val.jsonl").open("a") as stream:
        stream.write('["?"]\n')
    with pytest.raises(OutputError, match=r"val\.jsonl, line 3 is no JSON object; remove the line"):
        status_of(run)


def test_a_folder_named_by_no_digit_is_no_checkpoint(run):
    """`str.isdigit` takes a superscript for a digit, and `int` does not."""
    (run / "checkpoints" / "step_²").mkdir()
    assert status_of(run)["last_checkpoint"].endswith("step_00000004")


def test_an_epoch_so_small_that_the_images_have_no_end(place):
    folder = place.scratch / "sweep"
    shutil.copytree(place.good / "sweep", folder)
    changed(folder / "cells" / "done" / "metrics.jsonl", -1, epoch=5e-324)
    sweep = SweepFolder(folder)
    rows = rows_of_sweep(sweep, sweep.states())
    assert next(row for row in rows if row.cell == "done").unique_samples is None
    assert "done" in table(rows)


@pytest.mark.parametrize("text", ["a = " + "[" * 20_000, "a = " + "{a = " * 20_000, "a = " + "9" * 5000])
def test_toml_without_end(text, tmp_path):
    with pytest.raises(ValueError, match=r"nested too deeply|Exceeds the limit"):
        parse_toml(text)
    file = tmp_path / "file.toml"
    file.write_text(text)
    for read in (read_baseline, read_policy):
        with pytest.raises(GateFileError, match="is not TOML"):
            read(file)
    with pytest.raises(UsageError, match="is not TOML"):
        with_config([f"--config={file}"])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("seeds = [0]", "seeds = [[0]]", r"seed is '\[0\]', no whole number"),
        ("seeds = [0]", "seeds = [0, 1]", "has 1 values, and not as many seeds"),
        ('"ad05ebe3426a" = "', '"ad05ebe3426a" = [1]\n"other" = "', r"checkpoints is '\[1\]', no text"),
        ('suite = "quick"', "suite = false", "suite is 'False', no text"),
        ("task_version = 1", "task_version = true", "task_version is 'True', no whole number"),
        ("main = false", "main = 0", "main is '0', no true or false"),
        ("n = 192", f"n = {'9' * 400}", "n is '9999"),
        ("values = [0.2708333333333333]", "values = [nan]", "'nan' is no number of a measurement"),
        ("values = [0.2708333333333333]", "values = [1e308]", r"'1e\+308' is no number of a measurement"),
        ("values = [0.2708333333333333]", "values = []", "has 0 values"),
        ('hardware = "', 'hardware = 1\nother = "', "hardware is '1', no text"),
        ('reason = "', 'reason = []\nother = "', r"reason is '\[\]', no text"),
    ],
)
def test_a_baseline_whose_values_are_of_another_type(root, tmp_path, before, after, said):
    text = (root / "tests" / "gate" / "baseline.toml").read_text()
    assert before in text
    file = tmp_path / "baseline.toml"
    file.write_text(text.replace(before, after, 1))
    with pytest.raises(GateFileError, match=f"is damaged: .*{said}.*restore it from version control"):
        read_baseline(file)


def test_a_ratio_of_a_baseline_without_end(root, tmp_path):
    file = tmp_path / "baseline.toml"
    text = (root / "tests" / "gate" / "baseline.toml").read_text()
    file.write_text(f'{text}\n[speed."step / timm"]\nmedian = {"9" * 400}\nlow = 1.0\nhigh = {"9" * 401}\n')
    with pytest.raises(GateFileError, match="is no number of a measurement"):
        read_baseline(file)


@pytest.mark.parametrize("column", ["value", "baseline", "standard_error", "seconds"])
def test_a_result_whose_square_has_no_end(place, column):
    file = place.scratch / "results.jsonl"
    shutil.copy(place.good / "eval" / "results" / "results.jsonl", file)
    changed(file, 0, **{column: 1e308})
    with pytest.raises(ResultsError, match=rf"field {column} is 1e\+308, no number that the harness writes"):
        read_rows(file)


@pytest.mark.parametrize("name", ["\0", "a\0b", "\ud83d", "a" * 3000, "../.."])
def test_a_gallery_that_no_folder_is_called(place, name):
    folder = place.scratch / "results"
    shutil.copytree(place.good / "eval" / "results", folder)
    changed(folder / "results.jsonl", 0, gallery=name, tables={"extra": name}, samples=name)
    options = parse_options(ReportOptions, "report", [str(folder), "--output", str(place.scratch / "out")])
    assert report(options) == 0


@pytest.mark.parametrize("name", ["a" * 3000, "é" * 300, "a\0b"])
def test_a_checkpoint_of_a_row_that_no_folder_is_called(place, name):
    row = read_rows(place.good / "eval" / "results" / "results.jsonl")[0]
    findings = list(check_checkpoints(place.scratch, [dataclasses.replace(row, checkpoint=name)]))
    assert "is not here any more" in findings[-1].detail


@pytest.mark.parametrize(
    ("content", "said"), [("[1]", "no hashes by file"), ("{", "not JSON"), ('{"a": 1}', "no hashes")]
)
def test_hashes_that_were_written_anew(place, content, said):
    name = f"hashes/{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"
    (place.scratch / "hashes").mkdir()
    (place.scratch / name).write_text(content)
    row = read_rows(place.good / "eval" / "results" / "results.jsonl")[0]
    (finding,) = check_files(place.scratch, [dataclasses.replace(row, files=name)])
    assert finding.state == "problem"
    assert said in finding.detail


@pytest.mark.parametrize("failure", [{}, [], {"step": None}, {"step": 1, "last_checkpoint": 3, "weights": None}])
def test_a_failure_that_names_no_step_or_checkpoint(run, failure):
    (run / "failure.json").write_text(json.dumps(failure))
    with pytest.raises(ResumeError, match=r"failure\.json cannot be read .*run the command of the run again"):
        replay(run, device=torch.device("cpu"))


def test_a_run_that_names_no_data(run):
    record = tree_of(run / "run.json")
    (run / "run.json").write_text(json.dumps({**record, "train_data": None}))
    (run / "failure.json").write_text('{"step": 1, "last_checkpoint": null, "weights": null}')
    with pytest.raises(ResumeError, match=r"run\.json does not say what data the run is of"):
        replay(run, device=torch.device("cpu"))


def test_scores_of_an_ablation_are_read_whole_or_refused(tmp_path):
    cell = Cell(shape=Shape(0.5, 2), budget="samples")
    about = {"checkpoint": "c", "data_hash": "d", "seconds": 1.5, "samples": 8, "steps": 2}
    file, ask = tmp_path / f"{cell.name}.npz", {"checkpoint_sha256": "c", "data_hash": "d"}
    np.savez(file, about=np.array(json.dumps(about)), **{"full/mean_recall": np.array([0.5, 1.0])})
    found = read_scores(tmp_path, cell, **ask)
    assert found is not None
    assert found.values["full/mean_recall"].tolist() == [0.5, 1.0]
    whole = file.read_bytes()
    for seed in range(100):
        file.write_bytes(mutated_bytes(Random(seed), whole))
        with contextlib.suppress(ResumeError):
            read_scores(tmp_path, cell, **ask)
    for changed_about in ({**about, "steps": None}, {**about, "seconds": "1"}, [], None):
        np.savez(file, about=np.array(json.dumps(changed_about)), **{"full/mean_recall": np.array([0.5, 1.0])})
        with pytest.raises(ResumeError, match="remove it, and the cell is scored again"):
            read_scores(tmp_path, cell, **ask)


@pytest.mark.parametrize("seconds", [[1], None, 0.0, "x", 1e308])
def test_an_ablation_whose_steps_take_no_time(tmp_path, seconds):
    base = FLIP_RECIPES["tiny_flip"]()
    (tmp_path / "ablation.json").write_text(
        json.dumps({"config": config_to_json(base), "seconds_per_step": {"0.5x2": seconds}})
    )
    places = Places(train_data="", val_data="", out=tmp_path, num_workers=0, device="cpu", log=print)
    study = Ablation(base=base, cells=(), places=places, views=(), calibration_steps=1, calibration_rounds=1)
    with pytest.raises(ResumeError, match=r"ablation\.json cannot be read"):
        study._record()


def test_steps_without_their_seconds(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "seconds": 1.0}\n{"step": 2}\n')
    with pytest.raises(ResumeError, match="has 1 steps"):
        seconds_of_steps(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "seconds": 1.0}\n[]\n')
    with pytest.raises(OutputError, match="line 2 is no JSON object"):
        seconds_of_steps(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "\xff"])
def test_a_note_of_a_job_that_names_none(tmp_path, content):
    file = tmp_path / "job.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(HarnessOutputError, match="does not say which job it is of"):
        _noted(file)
    assert "starts over" in _interrupted(file)


@pytest.mark.parametrize("metric", ["score", "", "toy."])
def test_a_metric_that_names_no_task(metric):
    assert mean_outcomes(polars.DataFrame({"image": ["a"], "score": [1.0], "": [1.0]}), metric) is None


@pytest.mark.parametrize("deviations", [(), (0.2, 0.2)])
def test_channels_without_their_deviation(deviations):
    with pytest.raises(ConfigError, match="a number for every channel"):
        dataclasses.replace(MIM_RECIPES["tiny_mae"](), pixel_std=deviations)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"betas": ""}, "betas is ''; give a list"),
        ({"base_lr": 10**400}, "1329 bits"),
        ({"betas": [10**400, 0]}, "1329 bits"),
    ],
)
def test_settings_of_another_kind_or_past_all_numbers(changed, said):
    tree = json.loads(json.dumps(config_to_json(MIM_RECIPES["tiny_mae"]())))
    with pytest.raises(ConfigError, match=said):
        config_from_json({**tree, **changed})
