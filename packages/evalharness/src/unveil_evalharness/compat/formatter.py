"""The import of yapf, which mmengine needs to print configurations, beside other processes that import it."""

import importlib
import pickle
import time

from unveil_evalharness.errors import DependencyError

__all__ = ["import_yapf"]

_PAUSE = 0.1  # seconds


def import_yapf(*, attempts: int = 50) -> None:
    """Import yapf, again where its grammar could not be read.

    yapf keeps its grammar as a pickle in a cache of the user and renames the file into place before all of it is
    written: whoever starts at the same moment for the first time finds a part of it. A moment later it is whole.

    Args:
        attempts: How often to try, a tenth of a second apart.

    Raises:
        DependencyError: The cache stays unreadable.
    """
    for attempt in range(attempts):
        try:
            importlib.import_module("yapf.yapflib.yapf_api")
        except (EOFError, pickle.UnpicklingError) as error:
            if attempt + 1 == attempts:
                raise DependencyError(
                    f"yapf, which mmengine needs, cannot read its cached grammar ({type(error).__name__}: {error}); "
                    "remove the folder YAPF in the user's cache (~/.cache, or $XDG_CACHE_HOME)"
                ) from error
            time.sleep(_PAUSE)
        else:
            return
