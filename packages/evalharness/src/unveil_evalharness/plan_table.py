"""``evalharness run --dry-run``: every cell and how far it is; nothing is evaluated or written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unveil_backbones.limits import parse_json

from unveil_evalharness.cells import Cell, rows_of
from unveil_evalharness.cells import is_finished as finished
from unveil_evalharness.errors import one_line
from unveil_evalharness.options import RunOptions
from unveil_evalharness.results import ResultRow, read_rows

__all__ = ["cell_states", "format_states"]

_COLUMNS = ("checkpoint", "task", "suite", "protocol", "seed", "repeat", "limit", "state", "takes")


def cell_states(cells: Sequence[Cell], options: RunOptions) -> list[dict[str, Any]]:
    """One record per cell: what identifies it, its state, and how long the task says it takes.

    The states are ``finished``, ``not applicable: …``, ``failed before: …``, ``interrupted, …`` and ``to do``.

    Args:
        cells: of the run.
        options: of the run.
    """
    rows = read_rows(options.output_path / "results.jsonl")
    hashes: dict[str, str] = {}
    records = []
    for cell in cells:
        if cell.task.name not in hashes:
            hashes[cell.task.name] = _data_hash(cell, options)
        records.append(
            {
                "checkpoint": cell.subject.manifest.label,
                "task": cell.task.name,
                "suite": cell.suite,
                "protocol": cell.fingerprint,
                "seed": cell.seed,
                "repeat": cell.repeat,
                "limit": cell.limit,
                "state": _state(cell, rows, hashes[cell.task.name], options),
                "takes": cell.task.expected_time(cell.suite),
            }
        )
    return records


def format_states(records: Sequence[dict[str, Any]]) -> str:
    """The records as an aligned Markdown table."""
    lines = [[_cell(record[name]) for name in _COLUMNS] for record in records]
    header = [name.capitalize() for name in _COLUMNS]
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([_line(header, widths), rule, *(_line(line, widths) for line in lines)])


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "\\|")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _interrupted(pointer: Path) -> str:
    try:
        return f"interrupted, goes on after pass {parse_json(pointer.read_text(encoding='utf-8'))['iteration']}"
    except (OSError, ValueError, KeyError, TypeError):  # `read_interim` refuses such a file as well, and says so
        return f"interrupted, starts over: {pointer} is damaged"


def _data_hash(cell: Cell, options: RunOptions) -> str:
    try:
        return cell.task.data_hash(options.data_root)
    except Exception as error:  # whatever a task raises here is a state to tell, as `run` would
        return f"!{one_line(error)}"


def _state(cell: Cell, rows: Sequence[ResultRow], data_hash: str, options: RunOptions) -> str:
    reason = cell.task.not_applicable(cell.subject.manifest)
    if reason is not None:
        return f"not applicable: {reason}"
    if data_hash.startswith("!"):
        return f"would fail: {data_hash[1:]}"
    if finished(cell, rows, data_hash):
        return "finished, evaluated again by --overwrite" if options.overwrite else "finished"
    work = options.output_path / "work" / cell.stem(data_hash)
    pointer = work / "interim.json"
    if pointer.is_file():
        return _interrupted(pointer)
    failed = [row for row in rows_of(cell, rows, data_hash) if row.status == "failed"]
    if failed:
        return f"failed before: {failed[-1].error}"
    return "interrupted, starts over" if work.is_dir() else "to do"
