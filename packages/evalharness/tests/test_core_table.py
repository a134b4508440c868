"""The table, to the letter."""

import json
from dataclasses import replace

from unveil_evalharness.results import ResultRow
from unveil_evalharness.table import format_table, rows_as_json

ROW = ResultRow(
    checkpoint="a",
    checkpoint_sha256="a" * 64,
    label="mae vit_tiny",
    task="toy",
    task_version=3,
    suite="quick",
    protocol="p",
    status="ok",
    metric="toy.score",
    main=True,
    value=0.5,
    baseline=0.25,
    standard_error=0.03125,
    n=40,
    seed=0,
    data_hash="d",
)


def test_the_table():
    rows = [
        ROW,
        replace(ROW, metric="toy.loss", higher_is_better=False, value=12.34567, baseline=None, standard_error=None),
        replace(ROW, label="flip|x", task="other", metric="other.score", status="failed", value=None, n=0),
    ]
    rows[2] = replace(rows[2], baseline=None, standard_error=None)
    assert format_table(rows) == "\n".join(
        [
            "| Checkpoint   | Task  | Version | Metric |   |   Value |   | Stderr | Baseline |  n | Status |",
            "|--------------|-------|--------:|--------|---|--------:|---|-------:|---------:|---:|--------|",
            "| mae vit_tiny | toy   |       3 | score  | ↑ |  0.5000 | ± | 0.0312 |   0.2500 | 40 | ok     |",
            "|              |       |         | loss   | ↓ | 12.3457 | ± |    N/A |          | 40 | ok     |",
            "| flip\\|x      | other |       3 |        |   |         |   |        |          |    | failed |",
        ]
    )


def status_of(row):
    return format_table([row]).splitlines()[-1].split("|")[-2].strip()


def test_a_value_that_does_not_beat_chance_says_so():
    assert status_of(replace(ROW, value=0.31)) == "ok, at chance"
    assert status_of(replace(ROW, value=0.32)) == "ok"
    assert status_of(replace(ROW, value=0.1, higher_is_better=False)) == "ok"
    assert status_of(replace(ROW, value=0.5, higher_is_better=False)) == "ok, at chance"


def test_limited_and_not_applicable_rows_say_so():
    assert status_of(replace(ROW, limited=True, limit=8)) == "ok, limited to 8"
    assert status_of(replace(ROW, status="not_applicable", value=None)) == "not applicable"


def test_a_seed_column_appears_with_several_seeds():
    lines = format_table([ROW, replace(ROW, seed=1)]).splitlines()
    assert [line.split("|")[4].strip() for line in lines] == ["Seed", "-----:", "0", "1"]


def test_another_checkpoint_with_the_same_task_repeats_the_task():
    lines = format_table([ROW, replace(ROW, label="second")]).splitlines()
    assert [cell.strip() for cell in lines[-1].split("|")[1:4]] == ["second", "toy", "3"]


def test_json_holds_every_field():
    assert [ResultRow(**fields) for fields in json.loads(rows_as_json([ROW]))] == [ROW]
