"""Speed and memory: what is read, and what the bounds let one say."""

import json

import numpy as np
import pytest
from scipy import stats
from unveil_evalharness.errors import GateFileError
from unveil_evalharness.gate.policy import RatioRule
from unveil_evalharness.gate.ratios import Ratio, judge_ratio, read_ratios


def ratio(median, low, high, kind="speed"):
    return Ratio(name="step", kind=kind, median=median, low=low, high=high)


def benchmark(ours, theirs, *, peaks=(None, None)):
    """A report as `benchmarks/_report.py` writes it, with what the gate reads."""
    timings = [
        {"name": name, "wall": [2 * value for value in cpu], "cpu": list(cpu), "calls": 1, "peak_bytes": peak}
        for name, cpu, peak in zip(("ours", "timm"), (ours, theirs), peaks, strict=True)
    ]
    return {"headline": "cpu", "outcomes": [{"title": "step", "ours": "ours", "timings": timings, "ratios": []}]}


@pytest.fixture
def write(tmp_path):
    def call(content):
        path = tmp_path / "ratios.json"
        path.write_text(json.dumps(content))
        return [path]

    return call


def test_a_list_of_ratios_is_read(write):
    found = read_ratios(
        write(
            [
                {"name": "step", "ratio": 1.2, "quartiles": [1.1, 1.3]},
                {"name": "step", "ratio": 2, "quartiles": [2, 2, 2], "kind": "memory"},
            ]
        )
    )
    assert found == {("speed", "step"): ratio(1.2, 1.1, 1.3), ("memory", "step"): ratio(2.0, 2.0, 2.0, "memory")}


def test_a_benchmarks_report_gives_bounds_of_the_median_over_rounds(write):
    theirs = [float(value) for value in range(11, 20)]
    found = read_ratios(write(benchmark([10.0] * 9, theirs, peaks=(100, 150))))
    speed = found["speed", "step / timm"]
    assert speed.median == 1.5
    # Of nine rounds the second and the eighth: the median is beyond either with probability 10 / 512.
    assert (speed.low, speed.high) == (1.2, 1.8)
    assert stats.binom.cdf(1, 9, 0.5) <= 0.05 < stats.binom.cdf(2, 9, 0.5)
    assert found["memory", "step / timm"].median == 1.5


def test_with_few_rounds_the_extremes_bound(write):
    found = read_ratios(write(benchmark([1.0] * 3, [1.0, 3.0, 2.0])))
    assert (found["speed", "step / timm"].low, found["speed", "step / timm"].high) == (1.0, 3.0)


def test_what_a_benchmark_writes_is_what_is_read(tmp_path, capsys):
    """The real report of a real comparison."""
    benchmarks = pytest.importorskip("benchmarks._report", reason="needs the root of the repository on the path")
    from benchmarks._compare import Candidate, Clock, Comparison, Settings, compare

    work = np.arange(2000.0)
    outcome = compare(
        Comparison(
            title="sum",
            ours=Candidate(name="ours", run=lambda: work.sum()),
            peers=[Candidate(name="peer", run=lambda: work.cumsum())],
            differences=lambda: {"peer": 0.0},
            tolerance=0.0,
        ),
        Settings(rounds=9, least_seconds=1e-4),
        Clock(),
    )
    report = benchmarks.Report("this CPU", headline="cpu", threads=1, path=tmp_path / "report.json")
    report.add(outcome)
    found = read_ratios([tmp_path / "report.json"])
    assert found["speed", "sum / peer"].median == pytest.approx(outcome.ratios[0].cpu.median)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "neither a report of benchmarks/ nor a list"),
        ([{"name": "x", "ratio": 1.0, "quartiles": [2.0, 3.0]}], "in order"),
        ([{"name": "x", "ratio": -1.0, "quartiles": [-1.0, -1.0]}], "above 0"),
        ([{"name": "x", "ratio": 1.0, "quartiles": [1.0, 1.0], "kind": "heat"}], "kind must be speed or memory"),
        ([{"name": "x", "ratio": 1.0, "quartiles": [1.0, 1.0]}] * 2, "is there twice"),
    ],
)
def test_other_files_are_refused(write, content, message):
    with pytest.raises(GateFileError, match=message):
        read_ratios(write(content))


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(GateFileError, match="cannot read"):
        read_ratios([tmp_path / "none.json"])


@pytest.mark.parametrize(
    ("rule", "candidate", "baseline", "outcome"),
    [
        (RatioRule(at_least=1.0), ratio(1.2, 1.1, 1.3), None, "ok"),
        (RatioRule(at_least=1.0), ratio(0.8, 0.7, 0.9), None, "regressed"),
        (RatioRule(at_least=1.0), ratio(1.0, 0.9, 1.1), None, "undecided"),
        (RatioRule(slowdown=0.1), ratio(1.2, 1.19, 1.21), ratio(1.2, 1.19, 1.21), "ok"),
        (RatioRule(slowdown=0.1), ratio(0.9, 0.89, 0.91), ratio(1.2, 1.19, 1.21), "regressed"),
        (RatioRule(slowdown=0.1), ratio(1.15, 0.9, 1.3), ratio(1.2, 1.19, 1.21), "undecided"),
    ],
)
def test_verdicts(rule, candidate, baseline, outcome):
    assert judge_ratio(rule, candidate, baseline).outcome == outcome


def test_a_slowdown_needs_a_baseline():
    with pytest.raises(GateFileError, match="the baseline has no speed 'step'"):
        judge_ratio(RatioRule(slowdown=0.1), ratio(1.0, 1.0, 1.0), None)


def test_the_same_speed_is_rarely_called_slower():
    """Rounds of one distribution on both sides; the false-alarm rate of the bounds is below 5 % twice over."""
    generator = np.random.default_rng(0)
    rounds = np.sort(generator.lognormal(0.0, 0.05, size=(2000, 2, 9)), axis=2)
    low, high = rounds[..., 1], rounds[..., 7]
    median = rounds[..., 4]
    alarms = [
        judge_ratio(
            RatioRule(slowdown=0.01),
            *(ratio(float(median[i, side]), float(low[i, side]), float(high[i, side])) for side in (0, 1)),
        ).outcome
        == "regressed"
        for i in range(300)
    ]
    assert np.mean(alarms) <= 0.05
