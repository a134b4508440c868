"""The folder a run writes: rows, manifests, protocols, samples, tables, gallery, hashes, logs, and work meanwhile."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil_backbones.redaction import redact_record
from unveil_backbones.whole_files import remove_unfinished, write_whole

from unveil_evalharness.errors import OutputError
from unveil_evalharness.fingerprint import fingerprint, protocol_fields
from unveil_evalharness.subjects import Subject
from unveil_evalharness.task import Picture, Task

if TYPE_CHECKING:
    import polars

__all__ = ["note_interruption", "prepare_output", "write_gallery", "write_hashes", "write_run_record", "write_samples"]


def prepare_output(
    output: Path,
    subjects: Sequence[Subject],
    tasks: Sequence[Task],
    suite: str,
    named: Mapping[str, str] | None = None,
) -> None:
    """Makes the folders and the copies that make the numbers readable later: manifests and protocols.

    Args:
        output: the folder.
        subjects: checkpoints.
        tasks: tasks.
        suite: whose protocols are used.
        named: other protocols by task.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        for folder in ("manifests", "protocols", "logs", "samples", "tables", "gallery", "hashes", "runs", "work"):
            (output / folder).mkdir(parents=True, exist_ok=True)
            remove_unfinished(output / folder)
        for folder in (output / "gallery").iterdir():
            remove_unfinished(folder)
        for subject in subjects:
            write_whole(output / "manifests" / f"{subject.short}.json", (subject.path / "manifest.json").read_bytes())
        for task in tasks:
            name = (named or {}).get(task.name, suite)
            protocol = task.protocol(name)
            content = {
                "task": task.name,
                "version": task.version,
                "suite": name,
                "protocol": protocol_fields(protocol),
            }
            file = f"{fingerprint(task.name, task.version, protocol)}.json"
            write_whole(output / "protocols" / file, (json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise OutputError(
            f"cannot write --output-path {output}: {error.strerror or error}; earlier results are intact; "
            "choose a folder you may write, on a disk with free space"
        ) from error


def write_samples(path: Path, samples: "polars.DataFrame") -> None:
    """Writes a table as parquet; a reader sees the whole file or none.

    Raises:
        OutputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    samples.write_parquet(buffer)
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; earlier results are intact") from error


def write_hashes(output: Path, text: str) -> str:
    """Writes the hashes of a cell's files under a name that is the hash of the text; its path inside `output`.

    Raises:
        OutputError: the file cannot be written.
    """
    name = f"hashes/{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    try:
        write_whole(output / name, text.encode())
    except OSError as error:
        raise OutputError(f"cannot write {output / name}: {error.strerror or error}") from error
    return name


def write_run_record(output: Path, run_id: str, record: Mapping[str, Any]) -> None:
    """Writes ``runs/<run_id>.json``: the command line with all its defaults, versions, code and hardware.

    Raises:
        OutputError: the file cannot be written.
    """
    path = output / "runs" / f"{run_id}.json"
    try:
        write_whole(path, (json.dumps(redact_record(record), indent=2) + "\n").encode())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def note_interruption(output: Path, run_id: str, signal_name: str) -> None:
    """Adds to ``runs/<run_id>.json`` that a signal ended the run, and when.

    Raises:
        OutputError: the file cannot be read or written.
    """
    path = output / "runs" / f"{run_id}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        when = datetime.now(UTC).isoformat(timespec="seconds")
        record["interrupted"] = [*record.get("interrupted", []), {"signal": signal_name, "time": when}]
        write_whole(path, (json.dumps(record, indent=2) + "\n").encode())
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot note in {path} that the run was interrupted: {error}") from error


def write_gallery(folder: Path, pictures: Sequence[Picture]) -> list[str]:
    """Writes pictures as ``00.jpg``, ``01.png``, … and, last, ``index.json`` with their captions and outcomes.

    Returns:
        The names of all files written.

    Raises:
        OutputError: the folder cannot be written.
    """
    index = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            suffix = "png" if picture.encoded.startswith(b"\x89PNG") else "jpg"
            name = f"{number:02d}.{suffix}"
            write_whole(folder / name, picture.encoded)
            index.append({"file": name, "caption": picture.caption, "outcome": picture.outcome})
        write_whole(folder / "index.json", (json.dumps(index, indent=1) + "\n").encode())
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}; earlier results are intact") from error
    return [*(entry["file"] for entry in index), "index.json"]
