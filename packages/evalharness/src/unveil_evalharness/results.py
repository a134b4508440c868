"""``results.jsonl``: one append-only row per (checkpoint, task, metric, seed).

This module needs no torch: the report and the correlation study read rows and manifests only.
"""

import dataclasses
import fcntl
import json
import os
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unveil_backbones.limits import parse_json

from unveil_evalharness.errors import OutputError, ResultsError

if TYPE_CHECKING:
    import polars

__all__ = [
    "SCHEMA_VERSION",
    "ResultRow",
    "Status",
    "append_rows",
    "is_finite",
    "latest",
    "read_rows",
    "row_key",
    "to_frame",
]

SCHEMA_VERSION = 1
_LARGEST = 1e100
Status = Literal["ok", "failed", "not_applicable"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultRow:
    """One metric of one task on one checkpoint; a failed or not applicable task leaves one row for its main metric."""

    schema_version: int = SCHEMA_VERSION
    checkpoint: str
    """Path of the checkpoint folder as resolved when it was evaluated."""
    checkpoint_sha256: str
    label: str
    """Short name of the checkpoint for people."""
    task: str
    task_version: int
    suite: str
    protocol: str
    """Protocol fingerprint, 16 hex digits."""
    status: Status
    metric: str
    """``<task>.<metric>``, such as ``"imagenet_ft.acc1"``."""
    main: bool = False
    """Whether this is the task's main metric."""
    value: float | None = None
    baseline: float | None = None
    """What a trivial method reaches on the same data."""
    unit: str = "fraction"
    standard_error: float | None = None
    n: int = 0
    seed: int
    higher_is_better: bool = True
    limited: bool = False
    """Made with ``--limit``: fit for a look, never for a comparison."""
    limit: int | None = None
    load_coverage: float | None = None
    data_hash: str
    """Hash of the evaluation data; empty when the data could not be read."""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    hardware: str = ""
    seconds: float = 0.0
    error: str = ""
    """One line: why the task failed or does not apply."""
    samples: str = ""
    """Per-sample outcomes, relative to the folder of ``results.jsonl``; empty when there are none."""
    gallery: str = ""
    """Folder of pictures with an ``index.json``, relative like `samples`; empty when there is none."""
    tables: dict[str, str] = dataclasses.field(default_factory=dict)
    """Parquet files of further tables by name, relative like `samples`."""
    peak_memory: int = 0
    """Most bytes the task held: of the device's memory on a GPU, of the process on a CPU; 0 where not measured."""
    batch_size: int = 0
    """Images per pass on the device, as asked for or as ``auto`` found it; 0 where the task chooses by itself."""
    repeat: int = 0
    """Which evaluation of the same cell this is, counted from 0 (``--repeats``); the spread over repeats is the noise
    floor of a comparison, and all but the first are left out of everything else."""
    files: str = ""
    """``hashes/<first 16 digits of its own SHA-256>.json``: the SHA-256 of each file this cell wrote, by its path."""
    run_id: str = ""
    """Which call of ``evalharness run`` wrote the row; ``runs/<run_id>.json`` holds its command line and versions."""
    time: str = ""
    """When the row was written, ISO 8601 in UTC."""


def row_key(row: ResultRow) -> tuple[str, str, str, str, int, int | None, int, str]:
    """What makes two rows the same measurement: checkpoint, task, protocol, metric, seed, limit, repeat and data."""
    return (row.checkpoint_sha256, row.task, row.protocol, row.metric, row.seed, row.limit, row.repeat, row.data_hash)


def append_rows(path: Path, rows: Sequence[ResultRow]) -> None:
    """Adds rows to the end of `path` in one locked write that has reached the disk on return.

    Several processes may append to one file. A write that fails half-way (full disk) is taken back, and half a row that
    a killed process left at the end is removed first, so the file always holds whole rows.

    Raises:
        OutputError: the file cannot be written; its earlier rows are intact.
    """
    if not rows:
        return
    block = "".join(json.dumps(dataclasses.asdict(row), allow_nan=False) + "\n" for row in rows).encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _append_block(file.fileno(), block)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; earlier rows are intact; free space or choose another "
            "--output-path, then run the same command again"
        ) from error


def _append_block(descriptor: int, block: bytes) -> None:
    size, whole = os.fstat(descriptor).st_size, _end_of_last_whole_line(descriptor)
    if _is_json(os.pread(descriptor, size - whole, whole)):
        block = b"\n" + block
    else:
        size = whole
    try:
        os.ftruncate(descriptor, size)
        written = 0
        while written < len(block):
            written += os.write(descriptor, block[written:])
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _end_of_last_whole_line(descriptor: int, step: int = 65536) -> int:
    """Offset just behind the last newline of the file; 0 when there is none."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - step)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _is_json(line: bytes) -> bool:
    """Whether a last line without newline is whole: half of a row is never valid JSON."""
    try:
        parse_json(line)
    except ValueError:
        return False
    return True


def read_rows(path: Path) -> list[ResultRow]:
    """All rows of a ``results.jsonl`` in file order; an absent file holds no rows.

    A last line without newline that is not valid JSON is a row whose write never finished; it is left out.

    Raises:
        ResultsError: a line is not a row, or was written by a newer version; names the file and the line.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror or error}") from error
    *lines, tail = data.split(b"\n")
    if _is_json(tail):
        lines.append(tail)
    return [_parse_row(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _parse_row(line: bytes, where: str) -> ResultRow:
    try:
        fields = parse_json(line)
    except ValueError as error:
        raise ResultsError(f"{where} is not a JSON line: {error}; move the damaged line out of the file") from error
    if not isinstance(fields, dict) or "schema_version" not in fields:
        raise ResultsError(f"{where} is not a result row: it has no schema_version")
    if fields["schema_version"] != SCHEMA_VERSION:
        raise ResultsError(
            f"{where} has schema_version {fields['schema_version']}, this unveil-evalharness reads {SCHEMA_VERSION}; "
            "upgrade unveil-evalharness or use another --output-path"
        )
    for name, (allowed, spelling) in _FIELD_TYPES.items():
        if name in fields and not isinstance(fields[name], allowed):
            raise ResultsError(f"{where}: field {name} must be {spelling}, got {fields[name]!r}")
    for name in ("versions", "tables"):
        if not all(isinstance(value, str) for value in fields.get(name, {}).values()):
            raise ResultsError(f"{where}: field {name} must hold texts; move the damaged line out of the file")
    odd = next(
        (name for name, value in fields.items() if isinstance(value, int | float) and not is_finite(value)), None
    )
    if odd is not None:
        raise ResultsError(
            f"{where}: field {odd} is {str(fields[odd])[:40]}, no number that the harness writes; move "
            "the damaged line out of the file"
        )
    try:
        return ResultRow(**fields)
    except TypeError as error:
        raise ResultsError(f"{where} is not a result row: {error}") from error


def is_finite(value: int | float) -> bool:
    """Whether a number is one of a measurement: whole with 64 bits, or below 1e100, so that its square has an end."""
    return abs(value) < _LARGEST if isinstance(value, float) else -(2**63) <= value < 2**63


def _field_types() -> dict[str, tuple[tuple[type, ...], str]]:
    """For each field of a row, the JSON types it may have and how to say so."""
    hints = typing.get_type_hints(ResultRow)
    return {field.name: _allowed(hints[field.name]) for field in dataclasses.fields(ResultRow)}


def _allowed(hint: Any) -> tuple[tuple[type, ...], str]:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return (str,), "text"
    members = typing.get_args(hint) if origin is types.UnionType else (origin or hint,)
    allowed = tuple(members) + ((int,) if float in members else ())
    return allowed, " or ".join("null" if member is types.NoneType else member.__name__ for member in members)


_FIELD_TYPES = _field_types()


def latest(rows: Iterable[ResultRow], *, repeats: bool = False) -> list[ResultRow]:
    """One row per measurement (see `row_key`): the last finished one, else the last one; in order of first appearance.

    A failure never hides an earlier success of the same measurement, nor an earlier failure a later success.

    Args:
        rows: all rows.
        repeats: whether to keep the second and further evaluations of a cell, which say how much a number varies by
            itself (`unveil_evalharness.repeats`) and are no measurements beside the first.
    """
    chosen: dict[tuple[Any, ...], ResultRow] = {}
    for row in rows:
        if row.repeat and not repeats:
            continue
        # Rows of a failure before the data was read carry no data hash; they belong to the same measurement.
        key = row_key(row)
        if key not in chosen or row.status != "failed" or chosen[key].status == "failed":
            chosen[key] = row
    finished = {_without_data(row) for row in chosen.values() if row.status != "failed"}
    return [
        row for row in chosen.values() if row.status != "failed" or row.data_hash or _without_data(row) not in finished
    ]


def _without_data(row: ResultRow) -> tuple[Any, ...]:
    return row_key(row)[:-1]


def to_frame(rows: Iterable[ResultRow]) -> "polars.DataFrame":
    """Rows as a polars table with one column per field; `versions` and `tables` become JSON text."""
    import polars

    records = []
    for row in rows:
        record = dataclasses.asdict(row)
        record["versions"] = json.dumps(row.versions, sort_keys=True)
        record["tables"] = json.dumps(row.tables, sort_keys=True)
        records.append(record)
    return polars.DataFrame(records, schema=_frame_schema(), orient="row")


def _frame_schema() -> dict[str, Any]:
    import polars

    kinds = {str: polars.String, bool: polars.Boolean, int: polars.Int64, float: polars.Float64, dict: polars.String}
    return {name: kinds[types_allowed[0]] for name, (types_allowed, _) in _FIELD_TYPES.items()}
