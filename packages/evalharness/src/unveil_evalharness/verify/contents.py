"""What a run wrote: files hashed again, and metrics computed again from the outcomes of single items."""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from unveil_backbones.limits import parse_json
from unveil_backbones.places import is_file

from unveil_evalharness.compare.outcomes import mean_outcomes, metric_function, read_samples, same_value
from unveil_evalharness.errors import NotComparableError, one_line
from unveil_evalharness.findings import Finding
from unveil_evalharness.results import ResultRow

__all__ = ["check_files", "check_metrics"]

_HASHES = re.compile(r"hashes/(?P<digest>[0-9a-f]{16})\.json")


def check_files(folder: Path, rows: Sequence[ResultRow]) -> Iterator[Finding]:
    """Samples, tables and pictures of each cell against the hashes that were written with its rows.

    Args:
        folder: the output folder.
        rows: its current rows.
    """
    for name, row in {row.files: row for row in rows if row.files}.items():
        subject = f"files of {row.task} ({row.label}, seed {row.seed})"
        hashes, problem = _read_hashes(folder, name)
        if problem:
            yield Finding(subject=subject, state="problem", detail=problem)
            continue
        problems = [problem for file, digest in hashes.items() if (problem := _problem(folder / file, digest))]
        unlisted = sorted(_named_files(row) - hashes.keys())
        problems += [f"{file} is not among the hashed files" for file in unlisted]
        yield from (Finding(subject=subject, state="problem", detail=problem) for problem in problems)
        if not problems:
            yield Finding(subject=subject, state="ok", detail=f"{len(hashes)} files")
    unhashed = [row for row in rows if not row.files and _named_files(row)]
    for row in {row.samples: row for row in unhashed}.values():
        missing = sorted(file for file in _named_files(row) if not is_file(folder / file))
        detail = f"missing: {', '.join(missing)}" if missing else "written by a version that did not hash files"
        yield Finding(subject=f"files of {row.task}", state="problem" if missing else "warning", detail=detail)


def _read_hashes(folder: Path, name: str) -> tuple[dict[str, str], str]:
    """The hashes, and what is wrong with the file that holds them."""
    match = _HASHES.fullmatch(name)
    file = folder / name
    if match is None:
        return {}, f"{name!r} is not the name of a file of hashes"
    if not is_file(file):
        return {}, f"{name} is missing"
    if _sha256(file)[:16] != match["digest"]:
        return {}, f"{name} was changed"
    try:
        hashes = parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        return {}, f"{name} is not JSON ({error})"
    if not isinstance(hashes, dict) or not all(isinstance(digest, str) for digest in hashes.values()):
        return {}, f"{name} holds no hashes by file"
    return hashes, ""


def _problem(file: Path, digest: str) -> str:
    if not is_file(file):
        return f"{file.name} is missing"
    return "" if _sha256(file) == digest else f"{file.name} was changed"


def _named_files(row: ResultRow) -> set[str]:
    return {name for name in (row.samples, *row.tables.values()) if name}


def check_metrics(folder: Path, rows: Sequence[ResultRow]) -> Iterator[Finding]:
    """Each value that follows from the outcomes of single items, computed again.

    Args:
        folder: the output folder.
        rows: its current rows.
    """
    cells: dict[str, list[ResultRow]] = {}
    for row in rows:
        if row.status == "ok" and row.samples:
            cells.setdefault(row.samples, []).append(row)
    for samples, own in cells.items():
        yield from _check_cell(folder / samples, own)


def _check_cell(file: Path, rows: Sequence[ResultRow]) -> Iterator[Finding]:
    subject = f"metrics of {rows[0].task} ({rows[0].label}, seed {rows[0].seed})"
    try:
        values = _recomputed(file, rows)
    except (NotComparableError, ValueError, KeyError) as error:
        yield Finding(subject=subject, state="problem", detail=one_line(error))
        return
    wrong = [row for row in rows if row.metric in values and not same_value(values[row.metric], _recorded(row))]
    for row in wrong:
        detail = f"{row.metric} is {values[row.metric]:.6f} by its outcomes, {_recorded(row):.6f} in the row"
        yield Finding(subject=subject, state="problem", detail=detail)
    if not wrong:
        left = len(rows) - len(values)
        beside = f", {left} do not follow from the outcomes" if left else ""
        yield Finding(subject=subject, state="ok", detail=f"{len(values)} computed again{beside}")


def _recorded(row: ResultRow) -> float:
    """NaN, which equals nothing, where a row has lost its value."""
    return math.nan if row.value is None else row.value


def _recomputed(file: Path, rows: Sequence[ResultRow]) -> dict[str, float]:
    """By metric, those that follow from the table."""
    samples = read_samples(file)
    if samples is None:
        return {}  # told by `check_files`
    function = metric_function(rows[0].task)
    given = function(samples) if function is not None else {}
    values: dict[str, float] = {}
    for row in rows:
        outcomes = mean_outcomes(samples, row.metric)
        if outcomes is not None:
            values[row.metric] = float(outcomes.values.mean())
        elif row.metric in given:
            values[row.metric] = given[row.metric]
        elif row.main and "" in given:
            values[row.metric] = given[""]
    return values


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
