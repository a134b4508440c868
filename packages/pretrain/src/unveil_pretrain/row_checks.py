"""What the rows of a run's .jsonl files have to hold, so that damage is told by file and line. No torch here.

A flipped bit can leave JSON that is whole and means something else: a step that is text, a number without end. Columns
that this version does not know pass unseen; the ones that are computed with have to be what they are computed as.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from unveil_backbones.limits import parse_json

from unveil_pretrain.errors import OutputError

__all__ = ["checked_row", "is_number", "whole_rows"]

_LARGEST: Final = 2**63
_LARGEST_REAL: Final = 1e100
"""No loss of float32 comes near it, and the products and quotients that are made of such numbers have an end."""
_WHOLE: Final = ("step", "samples_seen", "unique_samples", "tokens_seen", "num_images", "train_num_images", "num_masks")
_REAL: Final = (
    "loss", "standard_error", "train_loss", "train_standard_error", "gap", "gap_standard_error", "epoch", "epochs",
    "lr", "grad_norm", "seconds", "samples_per_second",
)  # fmt: skip
_FINITE: Final = ("loss", "train_loss", "epoch", "epochs", "seconds", "samples_per_second")
"""The others may be NaN, as the standard error of a single image is."""
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "metrics.jsonl": ("step",),
    "val.jsonl": ("step", "loss", "standard_error", "num_images"),
}
"""By file; of others only the step."""
_OF_A_GAP: Final = ("train_standard_error", "train_num_images", "gap", "gap_standard_error")
_OF_AN_ALARM: Final = ("since_step", "step", "rise", "standard_error", "false_alarm_rate")


def checked_row(line: bytes | str, file: Path, number: int | None = None) -> dict[str, Any]:
    """The row in one line of a run's file.

    Args:
        line: The line, without its end.
        file: Where it is; its name says which columns a row has to have.
        number: Of the line, where it is known.

    Raises:
        OutputError: it is no JSON object, lacks a column, or a column holds what it cannot.
    """
    where = f"{file}, line {number}" if number is not None else f"a line of {file}"
    try:
        row = parse_json(line)
    except ValueError as error:
        raise OutputError(f"{where} is not JSON ({error}); remove the line") from error
    if not isinstance(row, dict):
        raise OutputError(f"{where} is no JSON object; remove the line")
    problem = _problem(row, file.name)
    if problem:
        raise OutputError(f"{where} {problem}; restore the file or remove the line")
    return row


def whole_rows(lines: Iterable[bytes], file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that are whole, and what is wrong with each of the others: for a log that goes on without them.

    Args:
        lines: The lines of the file, without their ends.
        file: As `checked_row`.
    """
    rows, problems = list[dict[str, Any]](), list[str]()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(checked_row(line, file, number))
        except OutputError as error:
            problems.append(str(error).rpartition(";")[0])
    return rows, problems


def is_number(value: object, *, whole: bool = False, finite: bool = True) -> bool:
    """Whether a JSON value is a number that arithmetic can take; a whole one is not negative either.

    One of 1e100 is none, as the quotient of two such may have no end; NaN and the infinities are, unless `finite`.
    """
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return False
    if isinstance(value, float):
        return abs(value) < _LARGEST_REAL or not (finite or math.isfinite(value))
    return -_LARGEST < value < _LARGEST and (not whole or value >= 0)


def _problem(row: Mapping[str, Any], name: str) -> str:
    """What is wrong with a row, as the end of a sentence; empty if nothing is."""
    missing = next((column for column in _NEEDED.get(name, ("step",)) if row.get(column) is None), None)
    if missing is not None:
        return f"lacks {missing}"
    for column, value in row.items():
        known = column in _WHOLE or column in _REAL
        # A validation has views with names of their own; they all are numbers.
        if name == "val.jsonl":
            known = column not in ("alarm", "passport")
        if known and value is not None and not is_number(value, whole=column in _WHOLE, finite=column in _FINITE):
            return f"has {column} {_shown(value)}, which is no {'whole ' if column in _WHOLE else ''}number"
    return _problem_of_validation(row) if name == "val.jsonl" else ""


def _problem_of_validation(row: Mapping[str, Any]) -> str:
    alarm = row.get("alarm")
    if alarm is not None and not (
        isinstance(alarm, dict) and all(is_number(alarm.get(column)) for column in _OF_AN_ALARM)
    ):
        return f"has alarm {_shown(alarm)}, which is none that a run writes"
    if not isinstance(row.get("passport", ""), str):
        return f"has passport {_shown(row['passport'])}, which is no text"
    halves = [] if row.get("train_loss") is None else [column for column in _OF_A_GAP if row.get(column) is None]
    halves += [
        f"{column}_standard_error"
        for column in row
        if column.endswith("_gap") and row[column] is not None and row.get(f"{column}_standard_error") is None
    ]
    return f"lacks {halves[0]}" if halves else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
