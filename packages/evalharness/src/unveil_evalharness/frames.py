"""Table files read by polars, whose complaints about damage all become one kind of error."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from unveil_backbones.panics import without_traces
from unveil_backbones.parquet_pages import check_parquet

if TYPE_CHECKING:
    import polars

__all__ = ["guarded", "read_parquet"]


def read_parquet(path: Path) -> "polars.DataFrame":
    """The table in a parquet file.

    Raises:
        OSError: the file is not there, or cannot be opened.
        polars.exceptions.PolarsError: it is damaged.
    """
    import polars

    def read() -> "polars.DataFrame":
        check_parquet(path)
        return polars.read_parquet(path)

    return guarded(read)


def guarded(read: Callable[[], "polars.DataFrame"]) -> "polars.DataFrame":
    """What `read` gives.

    A flipped bit in a file's metadata makes polars ask for memory without end, or stop with its own PanicException,
    which is no Exception.

    Raises:
        OSError: as `read`.
        polars.exceptions.PolarsError: as `read`, and instead of everything else that damage leads to.
    """
    import polars

    try:
        with without_traces():
            return read()
    except (polars.exceptions.PanicException, ArithmeticError, MemoryError, TypeError, ValueError) as error:
        if isinstance(error, OSError | polars.exceptions.PolarsError):
            raise
        said = " ".join(str(error).split())[:200]
        raise polars.exceptions.ComputeError(f"{type(error).__name__} while it was decoded ({said})") from error
