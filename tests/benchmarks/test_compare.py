"""The harness that all ratios come from, on clocks that only move when told to."""

import fcntl
import itertools
import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks._compare import (
    Absent,
    Candidate,
    Clock,
    Comparison,
    Settings,
    Spread,
    Timing,
    UnequalOutputsError,
    compare,
)
from benchmarks._report import Report, utilisation


class Machine:
    """A machine whose time passes only when a candidate works; `load` slows everything down for a while."""

    def __init__(self):
        self.now = 0.0
        self.load = itertools.repeat(1.0)
        self.log = []

    def work(self, name, seconds):
        def run():
            self.log.append(name)
            self.now += seconds * next(self.load)

        return run

    def candidate(self, name, seconds, flops=None):
        return Candidate(name=name, run=self.work(name, seconds), flops=flops)

    @property
    def clock(self):
        return Clock(wall=lambda: self.now, cpu=lambda: 2 * self.now)


@pytest.fixture
def machine():
    return Machine()


def pair(machine, ours=1.0, peer=2.0, difference=0.0, tolerance=1e-5, **more):
    return Comparison(
        title="work",
        ours=machine.candidate("ours", ours),
        peers=[machine.candidate("peer", peer)],
        differences=lambda: {"peer": difference},
        tolerance=tolerance,
        **more,
    )


def test_the_ratio_is_their_time_over_ours(machine):
    outcome = compare(pair(machine, ours=1.0, peer=3.0), Settings(), machine.clock)
    assert outcome.ratios[0].wall == Spread(3.0, 3.0, 3.0)
    assert outcome.ratios[0].cpu == Spread(3.0, 3.0, 3.0)
    assert outcome.timings[0].wall == (1.0,) * 9
    assert outcome.timings[0].cpu == (2.0,) * 9


def test_a_slower_candidate_shows_less_than_one(machine):
    outcome = compare(pair(machine, ours=4.0, peer=1.0), Settings(), machine.clock)
    assert outcome.ratios[0].wall.median == 0.25


def test_rounds_are_interleaved_and_rotate(machine):
    comparison = Comparison(
        title="three",
        ours=machine.candidate("a", 1.0),
        peers=[machine.candidate("b", 1.0), machine.candidate("c", 1.0)],
        differences=lambda: {"b": 0.0, "c": 0.0},
        tolerance=0.0,
    )
    compare(comparison, Settings(rounds=4, warm_up=1), machine.clock)
    assert "".join(machine.log) == "abc" + "abc" + "bca" + "cab" + "abc"


def test_a_load_that_comes_and_goes_does_not_bend_the_ratio(machine):
    # From the fourth round on everything takes ten times as long; one after the other it would look like 20 or 0.2.
    machine.load = itertools.chain([1.0] * 8, itertools.repeat(10.0))
    outcome = compare(pair(machine), Settings(rounds=9), machine.clock)
    assert outcome.ratios[0].wall == Spread(2.0, 2.0, 2.0)


def test_warm_up_is_not_counted(machine):
    machine.load = itertools.chain([100.0, 100.0], itertools.repeat(1.0))
    outcome = compare(pair(machine), Settings(rounds=3, warm_up=1), machine.clock)
    assert outcome.timings[0].wall == (1.0, 1.0, 1.0)


def test_quick_work_is_repeated_and_divided(machine):
    outcome = compare(pair(machine, ours=0.25, peer=3.0), Settings(rounds=2, least_seconds=1.0), machine.clock)
    assert [timing.calls for timing in outcome.timings] == [4, 1]
    assert outcome.timings[0].wall == (0.25, 0.25)
    assert outcome.ratios[0].wall.median == 12.0


def test_times_are_taken_when_no_other_benchmark_takes_any(machine, tmp_path):
    turn = tmp_path / "turn"
    with turn.open("a") as other, ThreadPoolExecutor(1) as pool:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = pool.submit(compare, pair(machine), Settings(rounds=2, warm_up=1, turn=turn), machine.clock)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        assert len(machine.log) == 2  # both have warmed up
        fcntl.flock(other, fcntl.LOCK_UN)
        assert waiting.result(timeout=10).rounds == 2
    assert len(machine.log) == 6


@pytest.mark.parametrize("difference", [1e-4, math.inf, math.nan])
def test_unequal_outputs_stop_the_run_before_timing(machine, difference):
    with pytest.raises(UnequalOutputsError, match="differ by"):
        compare(pair(machine, difference=difference), Settings(), machine.clock)
    assert machine.log == []


def test_the_largest_tolerated_difference_passes(machine):
    assert compare(pair(machine, difference=1e-5), Settings(), machine.clock).ratios[0].difference == 1e-5


def test_outputs_nobody_compared_stop_the_run(machine):
    comparison = Comparison(
        title="work",
        ours=machine.candidate("ours", 1.0),
        peers=[machine.candidate("peer", 1.0)],
        differences=dict,
        tolerance=1.0,
    )
    with pytest.raises(UnequalOutputsError, match="nobody compared"):
        compare(comparison, Settings(), machine.clock)


def test_quartiles_are_those_of_the_inclusive_method():
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"warm_up": -1}, {"least_seconds": -1.0}])
def test_settings_refuse_what_cannot_be(wrong):
    with pytest.raises(ValueError, match="are allowed"):
        Settings(**wrong)


def test_device_is_waited_for_and_its_memory_read(machine):
    events = []
    peaks = iter([10, 20, 30, 40])
    clock = Clock(
        wall=lambda: machine.now,
        cpu=lambda: machine.now,
        synchronise=lambda: events.append("wait"),
        forget_peak=lambda: events.append("forget"),
        peak_bytes=lambda: next(peaks),
    )
    outcome = compare(pair(machine), Settings(rounds=2, warm_up=0), clock)
    # Order: ours, peer, peer, ours.
    assert [timing.peak_bytes for timing in outcome.timings] == [40, 30]
    assert events == ["forget", "wait", "wait"] * 4


def test_an_absent_peer_is_named_in_table_and_json(machine, capsys, tmp_path):
    comparison = Comparison(
        title="work",
        ours=machine.candidate("ours", 1.0),
        peers=[Absent(name="mae", reason="give --mae PATH"), machine.candidate("timm", 2.0)],
        differences=lambda: {"timm": 1e-6},
        tolerance=1e-5,
        bars={"timm": 1.5},
    )
    report = Report("a processor", headline="cpu", threads=1, path=tmp_path / "out" / "figures.json")
    report.add(compare(comparison, Settings(), machine.clock))
    printed = capsys.readouterr().out
    assert "mae: ABSENT (give --mae PATH)" in printed
    assert "1.5 reached" in printed
    assert "2.00 (2.00 to 2.00)" in printed
    assert "1.0e-06" in printed
    written = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert written["outcomes"][0]["absent"] == [{"name": "mae", "reason": "give --mae PATH"}]
    assert written["outcomes"][0]["ratios"][0]["cpu"]["median"] == 2.0
    assert written["environment"]["device"] == "a processor"


def test_a_missed_bar_and_too_few_rounds_are_said(machine, capsys):
    report = Report("a processor", headline="wall", threads=1)
    report.add(compare(pair(machine, bars={"peer": 2.5}), Settings(rounds=3), machine.clock))
    printed = capsys.readouterr().out
    assert "2.5 MISSED" in printed
    assert "a trial, not a result" in printed


def test_utilisation_is_flops_over_time_over_peak():
    timing = Timing(name="x", wall=(2.0, 2.0, 4.0), cpu=(9.0,) * 3, calls=1, peak_bytes=None, flops=100.0)
    assert utilisation(timing, 200.0) == 0.25
    assert utilisation(timing, None) is None
