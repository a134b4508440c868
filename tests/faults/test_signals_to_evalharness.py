"""SIGTERM and SIGINT to `evalharness run`: recorded, said, nobody stays behind, and the same in the end."""

import json
import signal
import sys
import time
from functools import partial

import pytest
from harness_folders import harness_differences, harness_unreadable
from unveil_evalharness.interrupts import orderly_termination, signal_of
from unveil_evalharness.results import read_rows

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


def interrupted(server, words, out, straight, number, when, seconds=0.0):
    ended = server.run("fault_children:evalharness", words, {}, signals=((seconds, number),), when=when)
    assert ended.code == CODES[number], ended.err
    assert ended.left == ()
    assert "Traceback" not in ended.err
    assert "evalharness: interrupted; finished tasks are kept, the same command goes on from here" in ended.err
    assert f"interrupted by {signal.Signals(number).name}" in ended.err
    (record,) = (json.loads(file.read_text()) for file in (out / "runs").glob("*.json"))
    assert [note["signal"] for note in record["interrupted"]] == [signal.Signals(number).name]
    assert harness_unreadable(out) == []
    assert [row for row in read_rows(out / "results.jsonl") if row.status == "failed"] == []
    again = server.run("fault_children:evalharness", words, {})
    assert again.code == 0, again.err
    assert harness_differences(out, straight) == []
    return again


@pytest.mark.parametrize("number", CODES)
def test_a_run_stops_records_it_and_goes_on(harness_server, harness_words, results, tmp_path, number):
    """The signal comes as the task begins; its log is there then."""
    out = tmp_path / "out"
    (log,) = (results / "logs").iterdir()
    interrupted(harness_server, harness_words("knn", out), out, results, number, out / "logs" / log.name)


class Dropping:
    """Does something where Python prints and drops exceptions: in a destructor, as in a module's hook at a fork."""

    def __init__(self, act):
        self.act = act

    def __del__(self):
        self.act()


@pytest.mark.parametrize("number", CODES)
def test_a_signal_that_arrives_where_python_drops_exceptions_is_not_lost(number, request):
    # A shell's background job begins with SIGINT ignored, and what is ignored stays so.
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, signal.default_int_handler)))

    def wait():
        Dropping(lambda: signal.raise_signal(number))
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt) as caught, orderly_termination():
        wait()
    assert signal_of(caught.value) == number


def test_other_exceptions_that_python_drops_are_printed_as_before(monkeypatch):
    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: dropped.append(found.exc_type))
    with orderly_termination():
        Dropping(lambda: 1 / 0)
    assert dropped == [ZeroDivisionError]


@pytest.mark.mm
@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
def test_training_goes_on_from_its_interim_checkpoint(training_server, harness_words, tmp_path, number):
    straight, out = tmp_path / "straight", tmp_path / "out"
    assert training_server.run("fault_children:evalharness", harness_words("imagenet_ft", straight), {}).code == 0
    (log,) = (straight / "logs").iterdir()
    pointer = out / "work" / log.stem / "interim.json"
    words = harness_words("imagenet_ft", out)
    interrupted(training_server, words, out, straight, number, pointer)
    assert "resumed after pass" in (out / "logs" / log.name).read_text()
