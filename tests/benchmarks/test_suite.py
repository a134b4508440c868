"""`python -m benchmarks`: the limits keep the promise, every line's options exist, and no line vanishes."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import __main__ as suite
from benchmarks._lines import MOST_SECONDS, Line, cpu_lines, gpu_lines
from benchmarks._photographs import write_photographs
from benchmarks._table import rows_of, write_table

FIGURES = {
    "environment": {"peak_tflops": 0.001},
    "headline": "cpu",
    "notes": [],
    "outcomes": [
        {
            "title": "work",
            "timings": [{"flops": 2e8, "wall": [0.4, 0.5, 0.6], "peak_bytes": 3 * 2**20}],
            "ratios": [
                {
                    "peer": "theirs", "cpu": {"median": 1.5, "low": 1.4, "high": 1.6},
                    "wall": {"median": 9.0, "low": 9.0, "high": 9.0}, "bar": 1.6, "difference": 1e-6,
                }
            ],
            "absent": [{"name": "reference", "reason": "give --mae"}],
        }
    ],
}  # fmt: skip


@pytest.fixture
def lines(tmp_path):
    clones = {"mae": tmp_path / "mae", "swin": tmp_path / "swin"}
    return {"cpu": cpu_lines(tmp_path, **clones), "cuda": gpu_lines(**clones)}


def test_the_limits_keep_the_promise_of_a_quarter_of_an_hour_and_nine_minutes(lines):
    assert MOST_SECONDS["cpu"] <= 15 * 60 - 15
    assert MOST_SECONDS["cuda"] <= 9 * 60 - 15
    assert all(line.limit <= MOST_SECONDS[device] for device in lines for line in lines[device])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_line_has_options_that_its_benchmark_knows(lines, device):
    for line in lines[device]:
        module = importlib.import_module(f"benchmarks.{line.module}")
        given = module._parser().parse_args([*line.options, "--rounds", "9", "--json", "x.json"])
        assert str(given.json) == "x.json"
        if device == "cuda":
            assert given.device == "cuda"


def test_an_option_that_is_gone_would_be_seen(lines):
    module = importlib.import_module("benchmarks.retrieval")
    with pytest.raises(SystemExit):
        module._parser().parse_args([*lines["cpu"][-2].options, "--gone"])


def test_rows_have_the_headline_ratio_the_bar_and_who_is_absent(capsys):
    rows = rows_of("steps", FIGURES)
    assert [(row.state, row.peer) for row in rows] == [("measured", "theirs"), ("absent", "reference")]
    write_table(rows, sys.stdout)
    out = capsys.readouterr().out
    assert "1.50× (1.40 to 1.60)" in out
    assert "1.6 MISSED" in out
    assert "| 40%" in out  # 2e8 operations in 0.5 s of 1e9 a second
    assert "| 3 " in out
    assert "steps, reference: ABSENT (give --mae)" in out


def test_a_benchmark_that_measured_nothing_says_why():
    (row,) = rows_of("steps", {**FIGURES, "outcomes": [], "notes": ["no peer"]})
    assert (row.state, row.why) == ("absent", "no peer")


@pytest.fixture
def one_line(monkeypatch):
    def set_line(**given):
        line = Line(
            **{"name": "a line", "module": "correlate", "options": ("--only", "bootstrap"), "limit": 120, **given}
        )
        monkeypatch.setattr(suite, "cpu_lines", lambda photographs, mae, swin: [line])

    return set_line


def test_a_line_runs_in_a_process_of_its_own_and_lands_in_the_table(one_line, tmp_path, capsys):
    one_line()
    assert suite.main(["--rounds", "1", "--images", str(tmp_path), "--json", str(tmp_path / "rows.json")]) == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row["state"] == "measured"
    assert row["peer"] == "a loop over scipy"
    assert row["ratio"]["median"] > 1
    assert "1 rounds a line" in capsys.readouterr().out


def test_a_line_that_is_too_slow_is_stopped_and_one_that_breaks_fails_the_table(one_line, tmp_path, capsys):
    one_line(limit=0.01)
    assert suite.main(["--images", str(tmp_path)]) == 0
    assert "a line: STOPPED (not finished after 0 s)" in capsys.readouterr().out
    one_line(options=("--nothing",))
    assert suite.main(["--images", str(tmp_path)]) == 1
    assert "a line: BROKEN (exit code 2:" in capsys.readouterr().out


def test_what_a_stopped_line_has_measured_is_kept(tmp_path, monkeypatch):
    def stopped(command, **_):
        Path(command[command.index("--json") + 1]).write_text(json.dumps(FIGURES))
        raise subprocess.TimeoutExpired(command, 5)

    monkeypatch.setattr(subprocess, "run", stopped)
    line = Line(name="steps", module="flip", options=(), limit=5)
    rows = suite.measure(line, tmp_path / "figures.json", rounds=9, turn=tmp_path / "turn")
    assert [(row.state, row.peer) for row in rows] == [("measured", "theirs"), ("stopped", "")]


def test_drawn_photographs_are_of_a_photographs_size(tmp_path):
    files = sorted(write_photographs(tmp_path / "drawn", num=2).iterdir())
    assert len(files) == 2
    with Image.open(files[0]) as image:
        assert image.size == (500, 375)
    assert 20_000 < files[0].stat().st_size < 200_000
    assert files[0].read_bytes() != files[1].read_bytes()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_lines_share_the_time_there_is(device, monkeypatch, tmp_path):
    """The later ones have what the first ones left."""
    given = [Line(name=str(number), module="masking", options=(), limit=5.0) for number in range(4)]
    limits = {}

    def slow(line, file, rounds, turn, environment):
        limits[line.name] = line.limit
        assert (int(environment["TORCHINDUCTOR_COMPILE_THREADS"]) >= 1) if device == "cuda" else turn is None
        time.sleep(0.2)
        return []

    monkeypatch.setattr(suite, "MOST_SECONDS", {device: 2.0})
    monkeypatch.setattr(suite, "gpu_lines" if device == "cuda" else "cpu_lines", lambda *place, **clones: given)
    monkeypatch.setattr(suite, "measure", slow)
    assert suite.main(["--device", device, "--images", str(tmp_path)]) == 0
    assert 0.0 <= limits["3"] < limits["0"] - 0.1 < 2.0
