"""SIGTERM and SIGINT: a run finishes its step, saves and ends with the code that shells expect; so do its processes.

Ctrl-C sends SIGINT; SLURM's time limit, Kubernetes, systemd and torchrun send SIGTERM. The first signal is a request
that the loop looks at once per step; the second one ends the process where it is, which hurts no checkpoint: they are
written beside their place and renamed.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

__all__ = ["Interrupted", "StopRequest", "ending_by_exception", "stop_requests"]

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

# `timeout`, terminals and cluster managers signal a process and its group: the same request twice, at once.
_SAME_REQUEST: Final = 1.0  # seconds

_TERMINATED: Final = "terminated; what is finished is kept, and the same command goes on from there"


class Interrupted(KeyboardInterrupt):
    """A signal ended the command in an orderly way; no `except Exception` on the way out takes it for a failure.

    Args:
        number: The signal.
        message: What was saved and how to go on, in one line.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 and the number of the signal: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


class StopRequest:
    """Whether this process was asked to stop."""

    number: int = 0
    """The signal that asked; 0 for none."""

    def __bool__(self) -> bool:
        return self.number > 0


@contextmanager
def stop_requests(*, speaks: bool = True) -> Iterator[StopRequest]:
    """Turn the first SIGTERM or SIGINT into a request, and let the second end the process, while the block runs.

    Outside of the main thread, where Python has no handlers, nothing changes; neither does a signal that is ignored,
    as SIGINT is under `nohup` and in background jobs of a shell.

    Args:
        speaks: Whether to say on stderr that a request has arrived; one process of a run does.
    """
    request, owner = StopRequest(), os.getpid()
    since = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal since
        del frame
        if os.getpid() != owner:  # a child that was forked meanwhile: signals to it are its own
            _end_by(number)
        elif not request:
            request.number, since = number, time.monotonic()
            if speaks:
                _say(
                    f"{signal.Signals(number).name}: the run ends and saves after this step (a validation or a "
                    "checkpoint under way is finished first); a second signal ends it at once"
                )
        elif time.monotonic() - since > _SAME_REQUEST:
            _end_by(number)

    with _handlers(handle):
        yield request


@contextmanager
def ending_by_exception() -> Iterator[None]:
    """SIGTERM as an exception, as Python does it with SIGINT: what was begun is undone and children are ended.

    Python drops an exception that is raised within a finaliser or a hook of `fork`; the block then ends with it.

    Raises:
        Interrupted: SIGTERM arrived.
    """
    arrived = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal arrived
        del frame
        arrived = number
        raise Interrupted(number, _TERMINATED)

    with _handlers(handle, (signal.SIGTERM,)):
        yield
        if arrived:
            raise Interrupted(arrived, _TERMINATED)


@contextmanager
def _handlers(handle: object, numbers: tuple[signal.Signals, ...] = _SIGNALS) -> Iterator[None]:
    before: dict[signal.Signals, object] = {}
    if threading.current_thread() is threading.main_thread():
        # None is a handler that was not installed from Python; it could not be put back.
        numbers = tuple(one for one in numbers if signal.getsignal(one) not in (signal.SIG_IGN, None))
        before = {one: signal.signal(one, handle) for one in numbers}  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)  # pyright: ignore[reportArgumentType]


def _end_by(number: int) -> None:
    """End this process as the signal would without a handler: its parent sees which signal it was."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _say(message: str) -> None:
    """To stderr without Python's buffer, which the signal may have interrupted."""
    try:
        os.write(2, f"\npretrain: {message}\n".encode())
    except OSError:
        # Ctrl-C ends the reader too, such as `tee`; what is said from here on goes nowhere, so that the run is saved.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
