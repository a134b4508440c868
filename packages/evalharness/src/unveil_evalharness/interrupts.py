"""SIGTERM as an exception, as Python does it with SIGINT: a run ends in an orderly way, and says how to go on."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

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
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
