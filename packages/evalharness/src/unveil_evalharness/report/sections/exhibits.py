"""What was predicted: pictures, confusion and per-class tables that tasks left beside their rows.

Result files may come from anywhere. A path that leaves the output folder is not followed, and only files that are JPEG
or PNG and of modest size are shown.
"""

from collections.abc import Sequence
from pathlib import Path

from unveil_backbones.limits import parse_json
from unveil_backbones.places import is_file, is_there

from unveil_evalharness.opening import opened_image
from unveil_evalharness.report.content import Gallery, Section, Shot
from unveil_evalharness.report.lookup import Lookup
from unveil_evalharness.report.sections.samples import outcome_table
from unveil_evalharness.report.tables import Table
from unveil_evalharness.results import ResultRow

__all__ = ["MAX_PER_TASK", "exhibits"]

MAX_PER_TASK = 3
"""Checkpoints of one task whose pictures and tables are shown: evenly spaced ones in the report's order."""
_MAX_SHOTS = 16
_MAX_BYTES = 600_000
_MAX_TOTAL = 12_000_000
_KINDS = {"JPEG": "jpeg", "PNG": "png"}


def exhibits(lookup: Lookup) -> tuple[Section, Section]:
    """One section of pictures and one of tables; either may be empty."""
    galleries: list[Gallery] = []
    tables: list[Table] = []
    left = _MAX_TOTAL
    notes: list[str] = []
    seen: list[str] = []
    for task in lookup.tasks:
        rows = _one_per_checkpoint(lookup, task)
        with_pictures, with_tables = [row for row in rows if row.gallery], [row for row in rows if row.tables]
        for row in _spread(with_pictures):
            shots = _shots(lookup, row, left)
            left -= sum(len(shot.encoded) for shot in shots)
            if shots:
                galleries.append(Gallery(title=_title(row), shots=shots))
        for row in _spread(with_tables):
            tables += _tables(lookup, row)
        seen += _left_out(task, "pictures", "gallery", len(with_pictures))
        notes += _left_out(task, "tables", "tables", len(with_tables))
    rule = ("Which items are shown is decided by a hash of their names, never by the outcome.",) if galleries else ()
    pictures = Section(key="predictions", title="Predictions", paragraphs=(*rule, *seen), galleries=tuple(galleries))
    outcomes = Section(key="outcomes", title="Classes and confusions", paragraphs=tuple(notes), folded=tuple(tables))
    return pictures, outcomes


def _left_out(task: str, what: str, where: str, count: int) -> list[str]:
    if count <= MAX_PER_TASK:
        return []
    return [
        f"{task}: {what} of {MAX_PER_TASK} of {count} checkpoints, evenly spaced in the order of the results; "
        f"the others are in {where}/ of the output folder."
    ]


def _one_per_checkpoint(lookup: Lookup, task: str) -> list[ResultRow]:
    """The first finished row of each checkpoint, protocol and limit: all metrics of a cell name the same files."""
    rows: dict[tuple[object, ...], ResultRow] = {}
    for sha256 in lookup.checkpoints:
        for row in lookup.by_task.get((sha256, task), ()):
            if row.status == "ok":
                rows.setdefault((sha256, row.protocol, row.limit, row.data_hash), row)
    return list(rows.values())


def _spread(rows: Sequence[ResultRow]) -> list[ResultRow]:
    if len(rows) <= MAX_PER_TASK:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (MAX_PER_TASK - 1))] for index in range(MAX_PER_TASK)]


def _title(row: ResultRow) -> str:
    limited = "" if row.limit is None else f", limited to {row.limit}"
    return f"{row.task}: {row.label} ({row.suite}{limited})"


def _inside(lookup: Lookup, relative: str) -> Path | None:
    """The file or folder `relative` to the output folder that has it; None when there is none or it lies outside."""
    for output in lookup.evidence.outputs:
        path = Path(output)
        folder = (path.parent if path.name == "results.jsonl" else path).resolve()
        try:
            found = (folder / relative).resolve()
        except (OSError, ValueError, RuntimeError):  # no name of a file; a link to itself, before Python 3.13 the last
            return None
        if found.is_relative_to(folder) and is_there(found):
            return found
    return None


def _shots(lookup: Lookup, row: ResultRow, left: int) -> tuple[Shot, ...]:
    folder = _inside(lookup, row.gallery)
    if folder is None:
        return ()
    try:
        entries = parse_json((folder / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()  # a gallery without a whole index is one whose writing was cut short: the run was killed
    shots: list[Shot] = []
    for entry in entries if isinstance(entries, list) else ():
        shot = _shot(folder, entry) if isinstance(entry, dict) else None
        if shot is not None and len(shots) < _MAX_SHOTS and sum(len(s.encoded) for s in (*shots, shot)) <= left:
            shots.append(shot)
    return tuple(shots)


def _shot(folder: Path, entry: dict[str, object]) -> Shot | None:
    name, outcome = str(entry.get("file", "")), str(entry.get("outcome", "example"))
    try:
        path = (folder / name).resolve()
        if path.parent != folder or not is_file(path) or path.stat().st_size > _MAX_BYTES:
            return None
        encoded = path.read_bytes()
        with opened_image(encoded) as image:
            image.verify()
            kind, (width, height) = _KINDS.get(image.format or ""), image.size
    except (OSError, SyntaxError, ValueError, RuntimeError):  # the last of a link to itself
        return None
    if kind is None:
        return None
    return Shot(
        encoded=encoded,
        kind="jpeg" if kind == "jpeg" else "png",
        width=width,
        height=height,
        caption=str(entry.get("caption", "")),
        outcome="good" if outcome == "good" else "bad" if outcome == "bad" else "example",
    )


def _tables(lookup: Lookup, row: ResultRow) -> list[Table]:
    found = []
    for name, relative in row.tables.items():
        path = _inside(lookup, relative)
        if path is not None:
            table = outcome_table(path, name, f"{_title(row)}: {name.replace('_', ' ')}")
            found += [] if table is None else [table]
    return found
