"""The report for programs: its content as JSON, tables as CSV, and all result rows as one CSV file."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from unveil_evalharness.report.content import Content, Section
from unveil_evalharness.report.plot import Figure
from unveil_evalharness.report.tables import Cell, Table
from unveil_evalharness.results import ResultRow, to_frame

__all__ = ["rows_csv", "table_csv", "to_json"]

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
    writer.writerow(table.header)
    writer.writerows([[_exact(cell) for cell in row] for row in table.rows])
    return buffer.getvalue()


def rows_csv(rows: Iterable[ResultRow]) -> str:
    """One line per measurement with every field of `ResultRow`."""
    return to_frame(rows).write_csv()


def _exact(cell: Cell) -> str | float:
    return _guarded(cell.text) if cell.value is None or not math.isfinite(cell.value) else cell.value


def _guarded(text: str) -> str:
    """Spreadsheets take a leading ``=``, ``+``, ``-`` or ``@`` for a formula; an apostrophe makes it a word."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


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
