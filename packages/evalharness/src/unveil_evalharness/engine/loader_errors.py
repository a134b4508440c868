"""What goes wrong in a loader's processes, said in one line by this one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from unveil_evalharness.errors import DataError, HarnessError, one_line

__all__ = ["one_line_loader_errors"]

# Seconds between a process's socket closing, as it is killed, and PyTorch's signal handler saying who died.
_OBITUARY: Final = 1.0


@contextmanager
def one_line_loader_errors() -> Iterator[None]:
    """Gives an error of a loader's process its own line back, where torch hands over that process's traceback.

    Raises:
        HarnessError: what a process raised, of its own class.
        DataError: a process ended.
    """
    try:
        try:
            yield
        except (ConnectionError, EOFError):
            # Perhaps a process that was killed as it handed a batch over. The handler then raises wherever this
            # process stands: here, not in whatever the caller does next.
            time.sleep(_OBITUARY)
            raise
    except HarnessError as error:
        _, name, line = str(error).rpartition(f"{type(error).__module__}.{type(error).__name__}: ")
        if not name:
            raise
        raise type(error)(line) from error
    except RuntimeError as error:
        said = str(error)
        # "Caught RuntimeError in DataLoader worker": one that a process met, and outlived.
        if "DataLoader worker" not in said or said.startswith("Caught "):
            raise
        raise DataError(
            f"a loader's process ended ({one_line(error, limit=160)}); often memory or /dev/shm is full: free some, "
            "and repeat the command"
        ) from error
