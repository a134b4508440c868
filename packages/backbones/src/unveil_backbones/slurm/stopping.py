"""How a job learns that it is to stop, and how its command does.

SLURM signals every process of a job at once. Before the time limit that is a notice (SIGUSR2, or what
SUBMITIT_PREEMPT_SIGNAL names), which submitit answers in the job's own process: it calls `checkpoint`, has the job
queued again and leaves. At `scancel` and `scontrol requeue` it is SIGTERM, which the command answers by itself.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

__all__ = ["Notice", "ask_to_end", "heed_no_notice", "noticing", "wait_for"]

_LOOK_EVERY = 0.1  # seconds
_A_WHILE = 60.0  # seconds


@dataclass(slots=True)
class Notice:
    """What this process was told."""

    stopped: bool = False
    """Whether SIGTERM has arrived: what then ends is stopped, and has not failed."""


def heed_no_notice() -> None:
    """For a child between fork and exec: the notice is its parent's business, and would end the child."""
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def noticing() -> Iterator[Notice]:
    """Keep this process alive through SIGTERM while the block runs, so that it sees how its command ends."""
    notice = Notice()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        notice.stopped = True

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield notice
    finally:
        signal.signal(signal.SIGTERM, before)


def wait_for(process: subprocess.Popen[bytes]) -> int:
    """A command's exit code, once it has ended; this process answers signals meanwhile.

    A wait without an end is no place for that: a signal that arrives just before it begins, or in another thread, does
    not interrupt it, and what Python does about signals is done by the main thread between two of its steps. A wait
    that may end is made of such steps, some twenty a second.
    """
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_A_WHILE)


def ask_to_end(number: int, *, patience: float) -> None:
    """Have a child save and end: SIGTERM, and SIGKILL after `patience` seconds.

    It is looked at without being reaped: this is called from a signal handler, which may have interrupted the wait of
    `subprocess` in the middle.

    Args:
        number: Process number of a child.
        patience: Seconds that it gets.
    """
    try:
        os.kill(number, signal.SIGTERM)
        until = time.monotonic() + patience
        while not _has_ended(number):
            if time.monotonic() > until:
                os.kill(number, signal.SIGKILL)
                until = float("inf")
            time.sleep(_LOOK_EVERY)
    except (ProcessLookupError, ChildProcessError):
        return  # it has ended and been reaped


def _has_ended(number: int) -> bool:
    return os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
