"""Processes that end with the one that started them: `python -m unveil_evalharness.executing.bound PARENT COMMAND ...`.

What a killed harness had others compute is of use to nobody: the same command computes it again, and the process would
hold a GPU meanwhile. The kernel ends it, even after a SIGKILL, so that the command needs no flag and no pipe to watch.

A process says so of itself, and then becomes the command. `preexec_fn` of subprocess would do without one more start of
Python (0.1 s), but Python runs the hooks of modules at such forks, and drops a signal's exception that arrives in one.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["bound"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def bound(command: Sequence[str]) -> list[str]:
    """The words of a process that is killed when this one ends, however it ends; on Linux only, elsewhere `command`."""
    if sys.platform != "linux":
        return [*command]
    return [sys.executable, "-m", __name__, str(os.getpid()), *command]


def _become(parent: int, command: list[str]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:  # else it has ended before the line above
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
