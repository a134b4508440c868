"""The small files of a sweep, read with a look at what they hold: damage is told by file, with what to do."""

from pathlib import Path
from typing import Any

from unveil_backbones.limits import parse_json

from unveil_pretrain.errors import SweepError
from unveil_pretrain.row_checks import is_number
from unveil_pretrain.sweeping.job import outcome_file, read_outcome

__all__ = ["checked_data", "event_of", "outcome_of"]


def event_of(line: bytes, file: Path) -> dict[str, str]:
    """A line of a sweep's diary.

    Raises:
        SweepError: it is none.
    """
    try:
        row = parse_json(line)
    except ValueError as error:
        raise SweepError(f"{file} holds a line that is not JSON ({error}); remove the line") from error
    if not isinstance(row, dict) or not isinstance(row.get("cell"), str):
        raise SweepError(f"{file} holds a line that names no cell; remove the line")
    wrong = next((name for name, value in row.items() if value is not None and not isinstance(value, str)), None)
    if wrong is not None:
        raise SweepError(f"{file} holds a line whose {wrong} is no text; remove the line")
    return row


def outcome_of(folder: Path, name: str) -> dict[str, Any] | None:
    """How a cell's last attempt ended, as `read_outcome` says it.

    Raises:
        SweepError: its file is damaged.
    """
    file = outcome_file(folder, name)
    try:
        outcome = read_outcome(folder, name)
        whole = outcome is None or (
            is_number(outcome["seconds"])
            and isinstance(outcome["code"], int)
            and isinstance(outcome["reason"], str | None)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SweepError(f"{file} cannot be read ({error!r}); remove it, and the cell is run again") from error
    if not whole:
        raise SweepError(f"{file} does not say how a cell ended; remove it, and the cell is run again")
    return outcome


def checked_data(values: object) -> dict[str, Any]:
    """The fields of the file that says what data a sweep has.

    Raises:
        TypeError: it is no object, or a field is of another type than it has to be.
    """
    if not isinstance(values, dict):
        raise TypeError("it is no JSON object")
    for name, value in values.items():
        right = is_number(value, whole=True) if name == "num_images" else isinstance(value, str)
        if not right and not (name == "lists" and value is None):
            raise TypeError(f"its {name} is {str(value)[:40]}")
    return values
