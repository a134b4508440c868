"""SIGTERM as an exception, as Python does it with SIGINT: a run ends in an orderly way, and says how to go on."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_SOON = 0.1  # seconds: whatever Python was in when it dropped an exception is over by then

__all__ = ["Terminated", "exit_code", "orderly_termination", "signal_of"]


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


def signal_of(error: KeyboardInterrupt) -> signal.Signals:
    """Which signal an exception stands for."""
    return signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT


def exit_code(error: KeyboardInterrupt) -> int:
    """128 and the number of the signal: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + signal_of(error)


@contextlib.contextmanager
def orderly_termination() -> Iterator[None]:
    """Turns SIGTERM into `Terminated` while the block runs; only in the main thread, where Python has handlers.

    Raises:
        Terminated: the signal arrived.
        KeyboardInterrupt: SIGINT arrived; Python's own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != owner:  # a loader's process, forked meanwhile: it simply ends
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with _sending_again_what_is_dropped():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _sending_again_what_is_dropped() -> Iterator[None]:
    """Python prints and drops an exception of a destructor, or of a module's hook at a fork; that of a signal as well.

    A fork of a large process takes long enough for a signal to arrive in it: it would be lost.
    """
    before, timers = sys.unraisablehook, list[threading.Timer]()

    def look(dropped: "sys.UnraisableHookArgs") -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            before(dropped)
            return
        timer = threading.Timer(_SOON, os.kill, (os.getpid(), signal_of(dropped.exc_value)))
        timer.daemon = True
        timers.append(timer)
        timer.start()

    sys.unraisablehook = look
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()
