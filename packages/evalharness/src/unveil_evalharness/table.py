"""The result table on stdout, in the form lm-evaluation-harness users know, and the same rows as JSON."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import Any

from unveil_backbones.terminal import visible

from unveil_evalharness.certainty import ALIKE_NOTE, all_alike
from unveil_evalharness.repeats import spreads
from unveil_evalharness.results import ResultRow, row_key

__all__ = ["format_table", "rows_as_json", "table_notes"]

_RIGHT = frozenset({"Version", "Value", "Stderr", "A/A", "Baseline", "n", "Seed"})
_DIGITS = 8
"""Of the fingerprint's sixteen; the rows hold them all."""


def format_table(rows: Sequence[ResultRow]) -> str:
    """The rows as a Markdown table that is also aligned for a terminal.

    ``↑`` and ``↓`` say whether higher or lower is better; the baseline is what a trivial method reaches on the same
    data, and a value that does not beat it by more than two standard errors is marked ``at chance``. A metric that no
    image is part of (AP of large objects, where there is none) has no value here, whatever its row holds. Names are
    shown once per group. With several seeds there is a seed column and, after the seeds of a metric, their mean with
    its standard error over seeds. Repeats of a cell are one line, whose A/A column is largest minus smallest value.

    Numbers of one metric that were measured by different protocols never share a column: each protocol then has a
    table of its own, under its fingerprint.
    """
    tables = _by_protocol(rows)
    parts = [_table(table) for table in tables]
    if len(tables) > 1:
        parts = [
            f"Protocols {', '.join(_protocols(table))}\n\n{part}" for table, part in zip(tables, parts, strict=True)
        ]
    return "\n\n".join(parts)


def table_notes(rows: Sequence[ResultRow]) -> list[str]:
    """What a reader of the table has to know; not in it, since programs read it."""
    alike = any(all_alike(row.value, row.standard_error, row.unit) for row in rows)
    return [ALIKE_NOTE] if alike else []


def rows_as_json(rows: Sequence[ResultRow]) -> str:
    """The rows as a JSON list, one object per row with the fields of `ResultRow`."""
    return json.dumps([dataclasses.asdict(row) for row in rows], allow_nan=False)


def _by_protocol(rows: Sequence[ResultRow]) -> list[list[ResultRow]]:
    """The rows in as many tables as a task has protocols here; in each table a task has one."""
    numbers: dict[str, dict[str, int]] = defaultdict(dict)
    tables: list[list[ResultRow]] = [[]]
    for row in rows:
        own = numbers[row.task]
        number = own.setdefault(row.protocol, len(own))
        while len(tables) <= number:
            tables.append([])
        tables[number].append(row)
    return tables


def _protocols(rows: Sequence[ResultRow]) -> list[str]:
    return [f"{task} {protocol}" for task, protocol in dict.fromkeys((row.task, row.protocol) for row in rows)]


def _table(rows: Sequence[ResultRow]) -> str:
    widths_of_noise = {row_key(spread.row): spread.width for spread in spreads(rows)}
    shown = [row for row in rows if not row.repeat]
    several_seeds = len({row.seed for row in shown}) > 1
    columns = [
        name
        for name, wanted in (
            ("Checkpoint", True), ("Task", True), ("Version", True), ("Protocol", True), ("Seed", several_seeds),
            ("Metric", True), ("", True), ("Value", True), ("±", True), ("Stderr", True),
            ("A/A", bool(widths_of_noise)), ("Baseline", True), ("n", True), ("Status", True),
        )
        if wanted
    ]  # fmt: skip
    records = [_record(row, noise=widths_of_noise.get(row_key(row))) for row in shown]
    if several_seeds:
        records += [_mean_record(group) for group in _over_seeds(shown)]
        records.sort(key=_order(shown))
    lines = [[record[column] for column in columns] for record in records]
    repeating = columns.index("Metric")
    lines = [line if i == 0 else _without_repeats(line, lines[i - 1], repeating) for i, line in enumerate(lines)]
    header = ["" if name == "±" else name for name in columns]
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]
    rule = "".join(
        "|" + "-" * (width + 1) + (":" if name in _RIGHT else "-") for name, width in zip(header, widths, strict=True)
    )
    return "\n".join([_line(header, header, widths), f"{rule}|", *(_line(line, header, widths) for line in lines)])


def _over_seeds(rows: Sequence[ResultRow]) -> Iterator[list[ResultRow]]:
    """The measured rows of each checkpoint and metric that has several seeds."""
    groups: dict[tuple[Any, ...], list[ResultRow]] = defaultdict(list)
    for row in rows:
        if row.value is not None:
            groups[row_key(dataclasses.replace(row, seed=0))].append(row)
    return (group for group in groups.values() if len(group) > 1)


def _order(rows: Sequence[ResultRow]) -> Any:
    """Sorts records as the rows come: by checkpoint and task, then by seed, the mean behind the last."""
    groups: dict[tuple[str, str], int] = {}
    for row in rows:
        groups.setdefault((_escape(row.label), row.task), len(groups))
    return lambda record: (groups[record["Checkpoint"], record["Task"]], record["Seed"] == "mean")


def _record(row: ResultRow, *, noise: float | None) -> dict[str, str]:
    """One row as text by column."""
    measured = row.value is not None
    known = measured and row.n > 0
    return {
        "Checkpoint": _escape(row.label),
        "Task": row.task,
        "Version": str(row.task_version),
        "Protocol": row.protocol[:_DIGITS],
        "Seed": str(row.seed),
        "Metric": row.metric.partition(".")[2] if measured else "",
        "": ("↑" if row.higher_is_better else "↓") if measured else "",
        "Value": "N/A" if measured and not known else _number(row.value),
        "±": "±" if known else "",
        "Stderr": _number(row.standard_error) if row.standard_error is not None else ("N/A" if measured else ""),
        "A/A": _number(noise),
        "Baseline": _number(row.baseline),
        "n": str(row.n) if measured else "",
        "Status": _status(row),
    }


def _mean_record(rows: Sequence[ResultRow]) -> dict[str, str]:
    """The mean over seeds, with its standard error over seeds: their standard deviation over √seeds."""
    values = [row.value for row in rows if row.value is not None]
    error = stdev(values) / len(values) ** 0.5
    mean = dataclasses.replace(rows[0], value=fmean(values), standard_error=error)
    # All seeds saw the same images: whether the mean beats chance, their sampling error decides as well.
    widest = max(error, *(row.standard_error or 0.0 for row in rows))
    status = f"{_status(dataclasses.replace(mean, standard_error=widest))}, over {len(values)} seeds"
    return _record(mean, noise=None) | {"Seed": "mean", "Status": status}


def _status(row: ResultRow) -> str:
    if row.status == "failed":
        return "failed"
    if row.status == "not_applicable":
        return "not applicable"
    words = ["ok"]
    if row.limited:
        words.append(f"limited to {row.limit}")
    if row.n == 0:
        words.append("no such images")
    elif not _beats_baseline(row):
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
    return visible(text).replace("|", "\\|")


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
