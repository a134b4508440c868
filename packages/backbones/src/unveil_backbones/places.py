"""What lies at a place that a person or a file of others names; the standard library only.

`Path.is_file` and its siblings raise for a name that no file can have: one that is too long always, one with a NUL or
half of a surrogate pair in some versions of Python. At such a place there is nothing, and whoever asks says so.
"""

import errno
from collections.abc import Callable
from pathlib import Path

__all__ = ["is_file", "is_folder", "is_there"]


def is_file(path: Path) -> bool:
    """Whether there is a file.

    Raises:
        OSError: it cannot be told, as in a folder that may not be read.
    """
    return _answer(path.is_file)


def is_folder(path: Path) -> bool:
    """Whether there is a folder.

    Raises:
        OSError: as `is_file`.
    """
    return _answer(path.is_dir)


def is_there(path: Path) -> bool:
    """Whether there is anything.

    Raises:
        OSError: as `is_file`.
    """
    return _answer(path.exists)


def _answer(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except ValueError:  # UnicodeEncodeError is one, and so is what a NUL leads to
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False
