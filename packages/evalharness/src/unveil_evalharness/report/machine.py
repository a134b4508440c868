"""The report for programs: its content as JSON, tables as CSV, and all result rows as one CSV file."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from unveil_evalharness.plot import Figure
from unveil_evalharness.report.content import Content, Section
from unveil_evalharness.report.tables import Cell, Table
from unveil_evalharness.results import ResultRow, to_frame

if TYPE_CHECKING:
    import polars

__all__ = ["frame_csv", "guarded", "rows_csv", "table_csv", "to_json"]

SCHEMA_VERSION = 1


def to_json(content: Content, extra: Mapping[str, Any]) -> str:
    """Answers, tables with exact numbers and the points of the figures; `extra` adds further top-level members.

    Every number is finite; what has no value is null. Pictures are left to the page.
    """
    whole = {
        "schema_version": SCHEMA_VERSION,
        "title": content.title,
        "answers": [
            {"about": a.task, "verdict": a.verdict, "text": a.text, "cautions": list(a.cautions)}
            for a in content.answers
        ],
        "results": _table(content.overview),
        "sections": [_section(section) for section in content.sections],
        **extra,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def table_csv(table: Table) -> str:
    """The table with exact numbers where it has them, else words."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([guarded(title) for title in table.header])
    writer.writerows([[_exact(cell) for cell in row] for row in table.rows])
    return buffer.getvalue()


def rows_csv(rows: Iterable[ResultRow]) -> str:
    """One line per measurement with every field of `ResultRow`."""
    return frame_csv(to_frame(rows))


def frame_csv(frame: "polars.DataFrame") -> str:
    """The frame as CSV with every word guarded."""
    import polars

    words = [name for name, kind in frame.schema.items() if kind == polars.String]
    safe = frame.with_columns(
        polars.Series(name, [_maybe(value) for value in frame[name]], polars.String) for name in words
    )
    return safe.write_csv()


def _maybe(text: str | None) -> str | None:
    return None if text is None else guarded(text)


def _exact(cell: Cell) -> str | float:
    return guarded(cell.text) if cell.value is None or not math.isfinite(cell.value) else cell.value


def guarded(text: str) -> str:
    """Spreadsheets take a leading ``=``, ``+``, ``-`` or ``@`` for a formula; an apostrophe makes it a word."""
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@", "\0") and text.strip() else text


def _section(section: Section) -> dict[str, Any]:
    return {
        "key": section.key,
        "title": section.title,
        "paragraphs": list(section.paragraphs),
        "answers": [{"about": a.task, "verdict": a.verdict, "text": a.text} for a in section.answers],
        "figures": [_figure(figure) for figure in section.figures],
        "tables": [_table(table) for table in (*section.tables, *section.folded)],
        "pictures": [
            {"title": gallery.title, "captions": [[shot.caption, shot.outcome] for shot in gallery.shots]}
            for gallery in section.galleries
        ],
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "header": list(table.header),
        "rows": [[_value(cell) for cell in row] for row in table.rows],
        "notes": list(table.notes),
    }


def _value(cell: Cell) -> str | float:
    return cell.text if cell.value is None or not math.isfinite(cell.value) else cell.value


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "title": figure.title,
        "panels": [
            {
                "title": panel.title,
                "x": panel.x_label,
                "y": panel.y_label,
                "points": [
                    {"x": _finite(x), "y": _finite(y), "about": tip.partition("\n")[0]}
                    for series in panel.series
                    if series.tips
                    for x, y, tip in zip(series.x, series.y, series.tips, strict=True)
                ],
            }
            for panel in figure.panels
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
