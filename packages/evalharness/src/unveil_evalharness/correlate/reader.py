"""Reads the cells of a table as words or as numbers, with complaints that name the column and the row."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil_evalharness.errors import ResultsError
from unveil_evalharness.frames import guarded, read_parquet
from unveil_evalharness.parsing import nearest

if TYPE_CHECKING:
    import polars

__all__ = ["SUFFIXES", "Reader", "read_table"]

SUFFIXES = (".csv", ".parquet", ".jsonl", ".ndjson")
"""Kinds of files that can be read."""


def read_table(path: Path) -> "polars.DataFrame":
    """The file as a table of text or numbers.

    Raises:
        ResultsError: it cannot be read.
    """
    import polars as pl

    readers: dict[str, Any] = {
        ".csv": lambda: pl.read_csv(path, infer_schema=False),
        ".parquet": lambda: read_parquet(path),
        ".jsonl": lambda: pl.read_ndjson(path),
        ".ndjson": lambda: pl.read_ndjson(path),
    }
    try:
        return guarded(readers[path.suffix.lower()])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ResultsError(f"cannot read {path}: {' '.join(str(error).split())}") from error


class Reader:
    """A table under the name of its source."""

    def __init__(self, table: "polars.DataFrame", *, source: str, first_line: int) -> None:
        self.columns: list[str] = table.columns
        self.source = source
        self.num_rows = len(table)
        self._table = table
        self._first_line = first_line

    def line(self, index: int) -> int:
        """The number by which an editor knows a row."""
        return index + self._first_line

    def labels(self) -> list[str]:
        """What to call each row: its run, label, cell or name, else its number."""
        for name in ("run", "label", "cell", "name"):
            if name in self.columns:
                return [word or f"row {self.line(index)}" for index, word in enumerate(self.words(name))]
        return [f"row {self.line(index)}" for index in range(self.num_rows)]

    def words(self, name: str) -> list[str]:
        """A column as text, "" for empty cells.

        Raises:
            ResultsError: there is no such column.
        """
        if name not in self.columns:
            raise ResultsError(f"{self.source} has no column {name!r}{nearest(name, self.columns)}")
        return ["" if value is None else str(value) for value in self._table[name].to_list()]

    def words_or(self, name: str, default: str) -> list[str]:
        """A column as text, or the default in every row when there is no such column."""
        return self.words(name) if name in self.columns else [default] * self.num_rows

    def numbers(self, name: str) -> list[float | None]:
        """A column as finite numbers, None for empty cells.

        Raises:
            ResultsError: there is no such column, or a cell is not a finite number.
        """
        return [self._number(name, index, text) for index, text in enumerate(self.words(name))]

    def numbers_or_none(self, name: str) -> list[float | None]:
        """A column as finite numbers, or None in every row when there is no such column."""
        return self.numbers(name) if name in self.columns else [None] * self.num_rows

    def _number(self, name: str, index: int, text: str) -> float | None:
        if not text.strip():
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ResultsError(
                f"{self.source}, row {self.line(index)}: {name} is {text!r}, not a finite number; correct it, or leave "
                "the cell empty to leave the row out"
            )
        return number
