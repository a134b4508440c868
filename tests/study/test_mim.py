"""The MIM study: its plan, its images, and its report from runs made by hand and by the sweep."""

import json

import numpy as np
import polars as pl
import pytest
from unveil_backbones import names
from unveil_pretrain.recipes import MIM_RECIPES

from study.mim_data import balanced_list
from study.mim_figure import draw
from study.mim_plan import ENCODERS, FRACTIONS, STEPS, study_plan
from study.mim_report import markdown, read_series


def test_the_plan_is_a_whole_grid_of_known_things_short_cells_first():
    plan = study_plan(300)
    assert len(plan.cells) == len(ENCODERS) * len(FRACTIONS) * len(STEPS)
    assert {cell.recipe for cell in plan.cells} <= set(MIM_RECIPES)
    assert set(ENCODERS) <= set(names())
    assert [cell.steps for cell in plan.cells] == sorted(cell.steps for cell in plan.cells)
    assert {cell.settings["gap_images"] for cell in plan.cells} == {30}  # no more than the smallest subset holds


def test_classes_share_the_images():
    keys = [f"{name}/{number}" for name in "abc" for number in range(9)]
    chosen = balanced_list(keys, 7)
    assert len(chosen) == 7
    counts = [sum(key.startswith(name) for key in chosen) for name in "abc"]
    assert max(counts) - min(counts) <= 1
    assert balanced_list(keys[::-1], 7) == chosen


def write_run(folder, steps, values, train_loss):
    (folder / "val").mkdir(parents=True)
    values = np.asarray(values)
    row = {"step": steps, "loss": values.mean(), "standard_error": 0.01, "train_loss": train_loss}
    (folder / "val.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "metrics.jsonl").write_text(json.dumps({"step": steps, "epoch": 4.0 * steps, "seconds": 1.0}) + "\n")
    numbers = np.arange(len(values))
    pl.DataFrame(
        {
            "split": ["val"] * len(values), "view": ["loss"] * len(values),
            "key": [f"{number:03d}" for number in numbers], "sample_id": numbers, "group": numbers, "value": values,
        }
    ).write_parquet(folder / "val" / f"step_{steps:08d}.parquet")  # fmt: skip


@pytest.fixture
def finished(tmp_path):
    """A study of two fractions and two lengths: the small one turns up by 0.01 ± 0.001, the large one falls."""
    plan = study_plan(100, encoders=["vit_micro"], fractions=(0.1, 1.0), steps=(10, 20))
    generator = np.random.default_rng(0)
    hard = generator.normal(0.8, 0.2, 100)
    for cell in plan.cells:
        change = {(0.1, 20): 0.01, (1.0, 20): -0.02}.get((cell.fraction, cell.steps), 0.0)
        values = hard + change + generator.normal(0.0, 0.01, 100)
        write_run(tmp_path / "cells" / cell.name, cell.steps, values, values.mean() - 0.05)
    return plan, tmp_path


def test_a_rise_is_seen_through_the_spread_of_the_images(finished):
    small, whole = read_series(finished[0].cells, finished[1])
    assert (small.fraction, whole.fraction) == (0.1, 1.0)
    assert small.over_fitted
    assert not whole.over_fitted
    # Unpaired, neither could be told from nothing: the images spread by 0.2, so that a mean has an error of 0.02.
    assert abs(small.changes[0].difference) < small.changes[0].unpaired_standard_error


def test_the_table_says_so(finished):
    rows = markdown(read_series(finished[0].cells, finished[1])).splitlines()
    assert rows[0].startswith("| encoder | fraction | val 10 | val 20 | 10 → 20 |")
    assert "turns up" in rows[2]
    assert "falls" in rows[3]
    assert "+0.0500" in rows[2]  # the gap of the longest run
    assert len({row.count("|") for row in rows}) == 1


def test_unfinished_cells_are_left_out(finished):
    plan, folder = finished
    (folder / "cells" / plan.cells[-1].name / "val.jsonl").unlink()
    series = read_series(plan.cells, folder)
    assert [len(one.points) for one in series] == [2, 1]


def test_the_figure_is_drawn(finished, tmp_path):
    draw(read_series(finished[0].cells, finished[1]), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
