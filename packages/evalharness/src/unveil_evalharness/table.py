"""The result table on stdout, in the form lm-evaluation-harness users know, and the same rows as JSON."""

import dataclasses
import json
from collections.abc import Sequence

from unveil_evalharness.results import ResultRow

__all__ = ["format_table", "rows_as_json"]

_HEADER = ("Checkpoint", "Task", "Version", "Metric", "", "Value", "", "Stderr", "Baseline", "n", "Status")
_RIGHT = frozenset({"Version", "Value", "Stderr", "Baseline", "n", "Seed"})


def format_table(rows: Sequence[ResultRow]) -> str:
    """The rows as a Markdown table that is also aligned for a terminal.

    ``↑`` and ``↓`` say whether higher or lower is better; the baseline is what a trivial method reaches on the same
    data, and a value that does not beat it by more than two standard errors is marked ``at chance``. A seed column
    appears when there are several seeds. Names are shown once per group.
    """
    several_seeds = len({row.seed for row in rows}) > 1
    header = (*_HEADER[:3], "Seed", *_HEADER[3:]) if several_seeds else _HEADER
    lines = [_cells(row, several_seeds) for row in rows]
    shown = [
        lines[i] if i == 0 else _without_repeats(lines[i], lines[i - 1], 4 if several_seeds else 3)
        for i in range(len(lines))
    ]
    widths = [max(len(line[column]) for line in (header, *shown)) for column in range(len(header))]
    rule = (
        "|"
        + "|".join(
            "-" * (width + 1) + (":" if name in _RIGHT else "-") for name, width in zip(header, widths, strict=True)
        )
        + "|"
    )
    return "\n".join([_line(header, header, widths), rule, *(_line(line, header, widths) for line in shown)])


def rows_as_json(rows: Sequence[ResultRow]) -> str:
    """The rows as a JSON list, one object per row with the fields of `ResultRow`."""
    return json.dumps([dataclasses.asdict(row) for row in rows], allow_nan=False)


def _cells(row: ResultRow, several_seeds: bool) -> list[str]:
    measured = row.value is not None
    name = row.metric.partition(".")[2]
    return [
        _escape(row.label),
        row.task,
        str(row.task_version),
        *([str(row.seed)] if several_seeds else []),
        name if measured else "",
        ("↑" if row.higher_is_better else "↓") if measured else "",
        _number(row.value),
        "±" if measured else "",
        _number(row.standard_error) if row.standard_error is not None else ("N/A" if measured else ""),
        _number(row.baseline),
        str(row.n) if measured else "",
        _status(row),
    ]


def _status(row: ResultRow) -> str:
    if row.status == "failed":
        return "failed"
    if row.status == "not_applicable":
        return "not applicable"
    words = ["ok"]
    if row.limited:
        words.append(f"limited to {row.limit}")
    if not _beats_baseline(row):
        words.append("at chance")
    return ", ".join(words)


def _beats_baseline(row: ResultRow) -> bool:
    """Whether the value is on the better side of the trivial baseline by more than two standard errors."""
    if row.value is None or row.baseline is None:
        return True
    gain = row.value - row.baseline if row.higher_is_better else row.baseline - row.value
    return gain > 2 * (row.standard_error or 0.0)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _without_repeats(line: list[str], above: list[str], columns: int) -> list[str]:
    """Blanks the leading cells that say what the row above says."""
    result = list(line)
    for column in range(columns):
        if line[column] != above[column]:
            break
        result[column] = ""
    return result


def _line(cells: Sequence[str], header: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.rjust(width) if name in _RIGHT else cell.ljust(width)
        for cell, name, width in zip(cells, header, widths, strict=True)
    )
    return "| " + " | ".join(padded) + " |"
