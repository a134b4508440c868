"""Parquet tables of a task as tables of the report; a confusion of few classes becomes a shaded square."""

from pathlib import Path
from typing import TYPE_CHECKING

from unveil_evalharness.correlate.words import number
from unveil_evalharness.frames import read_parquet
from unveil_evalharness.report.tables import Cell, Table

if TYPE_CHECKING:
    import polars

__all__ = ["outcome_table", "square"]

MAX_CLASSES = 16
"""Classes of a confusion that fit a square on a page; of more, the pairs are listed."""
_CONFUSION = ("label", "prediction")


def outcome_table(path: Path, name: str, title: str) -> Table | None:
    """The table in a parquet file; None when it cannot be read (its writing was cut short)."""
    import polars

    try:
        frame = read_parquet(path)
    except (OSError, polars.exceptions.PolarsError):
        return None
    if not frame.width:
        return None
    counts = [column for column in frame.columns if column not in _CONFUSION]
    if name == "confusion" and set(_CONFUSION) <= set(frame.columns) and len(counts) == 1:
        classes = sorted({str(value) for column in _CONFUSION for value in frame[column]})
        if len(classes) <= MAX_CLASSES:
            return square(frame, counts[0], classes, title)
        frame = frame.sort(counts[0], descending=True, maintain_order=True)
    texts = [column for column, kind in frame.schema.items() if not kind.is_numeric()]
    ordered = frame.select(*texts, *(column for column in frame.columns if column not in texts))
    rows = tuple(tuple(_cell(value) for value in row) for row in ordered.iter_rows())
    header = tuple(column.replace("_", " ") for column in ordered.columns)
    return Table(title=title, header=header, rows=rows, num_text_columns=len(texts))


def square(frame: "polars.DataFrame", count: str, classes: list[str], title: str) -> Table:
    """Rows are the true classes, columns the predicted ones; the shade is the share of the row."""
    found: dict[tuple[str, str], float] = {}
    for label, prediction, value in frame.select(*_CONFUSION, count).iter_rows():
        found[str(label), str(prediction)] = found.get((str(label), str(prediction)), 0.0) + float(value or 0)
    rows = []
    for label in classes:
        total = sum(found.get((label, other), 0.0) for other in classes)
        cells = [Cell(text=label)]
        for other in classes:
            value = found.get((label, other), 0.0)
            cells.append(Cell(text=f"{value:g}", value=value, shade=value / total if total else 0.0))
        rows.append(tuple(cells))
    return Table(
        title=title,
        header=("true class", *classes),
        rows=tuple(rows),
        notes=("Rows are true classes, columns predictions; the shade is the share of the row.",),
    )


def _cell(value: object) -> Cell:
    if isinstance(value, bool) or value is None:
        return Cell(text="–" if value is None else str(value).lower())
    if isinstance(value, int):
        return Cell(text=f"{value:,}", value=float(value))
    if isinstance(value, float):
        return Cell(text=number(value, 3), value=value) if value == value else Cell(text="–")
    return Cell(text=str(value))
