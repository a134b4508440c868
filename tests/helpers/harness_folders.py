"""What the output folder of `evalharness run` holds: whether all of it can be read, and whether two are the same."""

import dataclasses
import hashlib
import json
from pathlib import Path

from unveil_evalharness.results import latest, read_rows, row_key

__all__ = ["harness_differences", "harness_unreadable"]

CLOCKS = ("seconds", "peak_memory", "run_id", "time", "checkpoint")


def harness_unreadable(out: Path) -> list[str]:
    """What a killed run left that a reader would take for whole and that is not."""
    rows = read_rows(out / "results.jsonl")
    wrong = [
        f"{row.metric} is there twice" for index, row in enumerate(rows) if row_key(row) in map(row_key, rows[:index])
    ]
    for row in rows:
        for name, digest in json.loads((out / row.files).read_text()).items() if row.files else ():
            if hashlib.sha256((out / name).read_bytes()).hexdigest() != digest:
                wrong.append(f"{name} is not what its hash says")
    for folder in ("manifests", "protocols", "runs"):
        for file in (out / folder).glob("[!.]*.json"):
            json.loads(file.read_text())
    return wrong


def harness_differences(out: Path, straight: Path) -> list[str]:
    """Where two finished output folders are not the same."""
    found = [f"files: {name}" for name in sorted(_names(out) ^ _names(straight))]
    if _rows(out) != _rows(straight):
        found.append("results.jsonl")
    return found + [name for name in _common_files(out, straight) if _bytes(out, name) != _bytes(straight, name)]


def _common_files(out: Path, straight: Path) -> list[str]:
    """Files of both whose bytes depend on no clock."""
    inside = [file.relative_to(straight) for file in sorted(straight.rglob("*")) if file.is_file()]
    return [
        str(name)
        for name in inside
        if name.parts[0] not in ("logs", "runs", "results.jsonl") and (out / name).is_file()
    ]


def _bytes(out: Path, name: str) -> bytes:
    return (out / name).read_bytes()


def _names(out: Path) -> set[str]:
    """All but the records of calls, of which each start has its own."""
    names = (path.relative_to(out).as_posix() for path in out.rglob("*"))
    return {name for name in names if not (name.startswith("runs/") and name.endswith(".json") and "/." not in name)}


def _rows(out: Path) -> list[dict]:
    # Rows are only ever appended: a kill within those of a cell leaves some that the next start writes again, and
    # whoever reads results takes the latest of each.
    rows = [dataclasses.asdict(row) for row in latest(read_rows(out / "results.jsonl"))]
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in rows]
