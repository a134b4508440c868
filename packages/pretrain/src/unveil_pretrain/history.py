"""Reading the files of a run that may be running: rows that are half-written are no rows yet. No torch here."""

import json
from pathlib import Path
from typing import Any

from unveil_pretrain.errors import OutputError

__all__ = ["read_rows"]


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; none where it does not exist. A last line without an end is left out.

    Raises:
        OutputError: the file cannot be read, or holds a line that is no JSON object.
    """
    try:
        lines = file.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f"cannot read {file} ({error.strerror or error}); check the path and permissions") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise OutputError(f"{file}, line {number} is not JSON ({error}); remove the line") from error
        if not isinstance(row, dict):
            raise OutputError(f"{file}, line {number} is no JSON object; remove the line")
        rows.append(row)
    return rows
