"""What numbers were measured on and how: checkpoints, protocols and data, hashed again."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from unveil_backbones.limits import parse_json
from unveil_backbones.places import is_file, is_folder

from unveil_evalharness.errors import HarnessError, UnknownTaskError, one_line
from unveil_evalharness.findings import Finding
from unveil_evalharness.fingerprint import canonical_json, fingerprint
from unveil_evalharness.results import ResultRow
from unveil_evalharness.task import Task

__all__ = ["check_checkpoints", "check_data_hashes", "check_protocols"]


def check_checkpoints(folder: Path, rows: Sequence[ResultRow]) -> Iterator[Finding]:
    """Each checkpoint's manifest copy, and the checkpoint itself where it still is.

    Args:
        folder: the output folder.
        rows: its rows.
    """
    for row in {row.checkpoint_sha256: row for row in rows}.values():
        copy = folder / "manifests" / f"{row.checkpoint_sha256[:12]}.json"
        subject = f"manifest {copy.name}"
        if not is_file(copy):
            yield Finding(subject=subject, state="problem", detail=f"the copy of {row.label}'s manifest is missing")
        elif _sha256(copy) != row.checkpoint_sha256:
            yield Finding(subject=subject, state="problem", detail=f"it is not the manifest of {row.label} any more")
        else:
            yield Finding(subject=subject, state="ok", detail=row.label)
        yield _checkpoint(row)


def _checkpoint(row: ResultRow) -> Finding:
    """The checkpoint folder: its name is the hash of its manifest, which holds the hash of each file."""
    subject = f"checkpoint {row.checkpoint_sha256[:12]}"
    path = Path(row.checkpoint)
    if not is_folder(path):
        return Finding(subject=subject, state="warning", detail=f"not looked at: {path} is not here any more")
    import unveil_backbones
    from unveil_backbones.manifest import checkpoint_sha256

    try:
        if checkpoint_sha256(path) != row.checkpoint_sha256:
            return Finding(subject=subject, state="problem", detail=f"at {path} is another checkpoint now")
        unveil_backbones.load(path)
    except (ValueError, OSError) as error:
        return Finding(subject=subject, state="problem", detail=one_line(error))
    return Finding(subject=subject, state="ok", detail=f"{row.label} at {path}")


def check_protocols(folder: Path, rows: Sequence[ResultRow], load: Callable[[str], Task]) -> Iterator[Finding]:
    """Each protocol file against its fingerprint, and against what this version of the harness would do.

    Args:
        folder: the output folder.
        rows: its rows.
        load: gives the task of a name.
    """
    for row in {(row.task, row.protocol): row for row in rows}.values():
        file = folder / "protocols" / f"{row.protocol}.json"
        subject = f"protocol {row.protocol}"
        try:
            content = parse_json(file.read_text(encoding="utf-8"))
            text = canonical_json({name: content[name] for name in ("task", "version", "protocol")})
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield Finding(subject=subject, state="problem", detail=f"cannot be read: {one_line(error)}")
            continue
        again = hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
        if again != row.protocol:
            yield Finding(subject=subject, state="problem", detail=f"its fields give the fingerprint {again}")
        elif (content["task"], content["version"]) != (row.task, row.task_version):
            detail = f"it is of {content['task']} {content['version']}, the rows are of {row.task} {row.task_version}"
            yield Finding(subject=subject, state="problem", detail=detail)
        else:
            yield _still_in_use(row, subject, load)


def _still_in_use(row: ResultRow, subject: str, load: Callable[[str], Task]) -> Finding:
    """Whether the harness would measure the same way today; if not, old and new numbers do not compare."""
    words = f"{row.task} {row.suite}"
    try:
        task = load(row.task)
        now = fingerprint(task.name, task.version, task.protocol(row.suite))
    except HarnessError as error:
        return Finding(subject=subject, state="warning", detail=f"{words}: {one_line(error)}")
    if now != row.protocol:
        detail = f"{words}: this version of the harness measures by another protocol now ({now})"
        return Finding(subject=subject, state="warning", detail=detail)
    return Finding(subject=subject, state="ok", detail=words)


def check_data_hashes(
    data_root: Path | None, rows: Sequence[ResultRow], load: Callable[[str], Task]
) -> Iterator[Finding]:
    """Each task's data against the hash in its rows.

    Args:
        data_root: where the data is; None looks at none.
        rows: rows that were measured.
        load: gives the task of a name.
    """
    for task, hashes in _hashes_by_task(rows).items():
        subject = f"data of {task}"
        if data_root is None:
            yield Finding(subject=subject, state="warning", detail="not looked at; give --data-root")
            continue
        try:
            now = load(task).data_hash(data_root)
        except UnknownTaskError as error:  # one of the user's own, which rows know by its short name
            yield Finding(subject=subject, state="warning", detail=one_line(error))
            continue
        except (HarnessError, OSError) as error:
            yield Finding(subject=subject, state="problem", detail=one_line(error))
            continue
        others = sorted(hashes - {now})
        if others:
            detail = f"is {now} now; rows were measured on {', '.join(others)}"
            yield Finding(subject=subject, state="problem", detail=detail)
        else:
            yield Finding(subject=subject, state="ok", detail=now)


def _hashes_by_task(rows: Sequence[ResultRow]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        if row.status == "ok":
            found.setdefault(row.task, set()).add(row.data_hash)
    return found


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
