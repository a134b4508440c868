"""Clocks that jump, back and forth, during a run: the results are the same, durations are those of another clock."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from harness_folders import harness_differences
from run_folders import differences
from unveil_evalharness.results import latest, read_rows


def test_pretrain_with_a_clock_that_jumps_a_year_at_every_look(pretrain_server, pretrain_words, tmp_path):
    straight, jumped = tmp_path / "straight", tmp_path / "jumped"
    assert pretrain_server.run("fault_children:pretrain", pretrain_words("mim", straight), {}).code == 0
    ended = pretrain_server.run("fault_children:pretrain", pretrain_words("mim", jumped), {"clock": "jumps"})
    assert ended.code == 0, ended.err
    assert differences(jumped, straight) == []
    rows = [json.loads(line) for line in (jumped / "metrics.jsonl").read_text().splitlines()]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0.0
    assert seconds[-1] < 100.0
    assert all(0.0 < row["samples_per_second"] < 1e5 for row in rows)
    told = pretrain_server.run("fault_children:pretrain", ["status", str(jumped), "--json"], {"clock": "jumps"})
    assert told.code == 0, told.err
    assert told.err == ""


def test_evalharness_with_a_clock_that_jumps_a_year_at_every_look(harness_server, harness_words, results, tmp_path):
    out = tmp_path / "out"
    ended = harness_server.run("fault_children:evalharness", harness_words("knn", out), {"clock": "jumps"})
    assert ended.code == 0, ended.err
    assert harness_differences(out, results) == []
    assert all(0.0 < row.seconds < 100.0 for row in read_rows(out / "results.jsonl"))


def test_the_order_of_results_is_that_of_the_file(results):
    """A row written after the clock went back a year is still the later one."""
    from dataclasses import replace

    first = read_rows(results / "results.jsonl")[0]
    again = replace(first, time="2001-01-01T00:00:00+00:00", value=0.25)
    assert latest([first, again]) == [again]


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(0), timedelta(days=400)])
def test_the_age_of_a_baseline_is_never_negative(harness_server, results, tmp_path, jump):
    from unveil_evalharness.gate.baseline import read_baseline

    base = tmp_path / "base.toml"
    words = ["gate", "init", "--baseline", str(base), "--candidate", str(results), "--by", "a", "--reason", "b"]
    assert harness_server.run("fault_children:evalharness", words, {}).code == 0
    assert read_baseline(base).age(datetime.now(UTC) + jump) == max(0, jump.days)
