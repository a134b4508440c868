"""What a loader's process met, or that it ended, in one line."""

import signal
import time

import pytest
from unveil_evalharness.engine import loader_errors
from unveil_evalharness.engine.loader_errors import one_line_loader_errors
from unveil_evalharness.errors import DataError, GateError, HarnessError

DEATH = "DataLoader worker (pid 15828) is killed by signal: Killed. "


def raised(error):
    with pytest.raises((HarnessError, RuntimeError, OSError)) as found, one_line_loader_errors():
        raise error
    return found.value


def test_a_process_that_ended_is_named():
    found = raised(RuntimeError(DEATH))
    assert isinstance(found, DataError)
    assert "a loader's process ended (DataLoader worker (pid 15828)" in str(found)


@pytest.mark.parametrize("first", [ConnectionResetError(104, "reset"), EOFError()])
def test_a_process_that_is_killed_as_it_hands_over_is_named(monkeypatch, first):
    """Its socket closes first; the signal comes later, and would hit whoever works then."""

    def handler(number, frame):
        raise RuntimeError(DEATH)

    monkeypatch.setattr(loader_errors, "_OBITUARY", 5.0)
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    begin = time.monotonic()
    try:
        found = raised(first)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert isinstance(found, DataError)
    assert "a loader's process ended" in str(found)
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "a store"), RuntimeError("Caught RuntimeError in DataLoader worker process 0.")]
)
def test_other_errors_stay_what_they_are(monkeypatch, error):
    monkeypatch.setattr(loader_errors, "_OBITUARY", 0.01)
    assert raised(error) is error


def test_an_error_of_ours_loses_the_traceback_of_its_process():
    text = "Caught GateError in DataLoader worker process 0.\n…\nunveil_evalharness.errors.GateError: two of 3"
    found = raised(GateError(text))
    assert type(found) is GateError
    assert str(found) == "two of 3"
    plain = GateError("three of 3")
    assert raised(plain) is plain
