"""The A/A spread: the same cell evaluated again, which is never a measurement beside the first."""

from dataclasses import replace

import pytest
from unveil_evalharness.repeats import spreads
from unveil_evalharness.results import ResultRow, latest

ROW = ResultRow(
    checkpoint="a",
    checkpoint_sha256="a" * 64,
    label="mae vit_tiny",
    task="toy",
    task_version=1,
    suite="quick",
    protocol="p",
    status="ok",
    metric="toy.score",
    value=0.5,
    n=4,
    seed=0,
    data_hash="d",
)


def test_repeats_are_left_out_unless_they_are_asked_for():
    again = replace(ROW, repeat=1, value=0.7)
    assert latest([ROW, again]) == [ROW]
    assert latest([ROW, again], repeats=True) == [ROW, again]


def test_the_spread_over_repeats():
    rows = [ROW, replace(ROW, repeat=1, value=0.7), replace(ROW, repeat=2, value=0.6)]
    (spread,) = spreads(rows)
    assert spread.row == ROW
    assert spread.values == (0.5, 0.7, 0.6)
    assert spread.width == pytest.approx(0.2)
    assert spread.deviation == pytest.approx(0.1)


def test_seeds_metrics_and_failures_are_no_repeats():
    others = [
        replace(ROW, seed=1),
        replace(ROW, metric="toy.loss"),
        replace(ROW, repeat=1, value=None, status="failed"),
    ]
    assert spreads([ROW, *others]) == []


def test_only_the_current_row_of_a_repeat_counts():
    rows = [ROW, replace(ROW, repeat=1, value=0.9), replace(ROW, repeat=1, value=0.5)]
    (spread,) = spreads(rows)
    assert (spread.values, spread.width) == ((0.5, 0.5), 0.0)
