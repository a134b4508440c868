"""One cell of a run: a checkpoint, a task with its protocol, and a seed; what it is called and whether it is done."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unveil_evalharness.errors import OutputError
from unveil_evalharness.results import ResultRow, latest
from unveil_evalharness.subjects import Subject
from unveil_evalharness.task import Task

__all__ = ["Cell", "Claim", "attempts", "claim", "is_finished", "rows_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What identifies one evaluation."""

    subject: Subject
    task: Task
    suite: str
    protocol: Any
    fingerprint: str
    seed: int
    limit: int | None
    repeat: int = 0
    """Which evaluation of the same this is, from 0."""

    @property
    def title(self) -> str:
        """For people."""
        repeat = f", repeat {self.repeat}" if self.repeat else ""
        return f"{self.subject.manifest.label} · {self.task.name} (seed {self.seed}{repeat})"

    def stem(self, data_hash: str) -> str:
        """Name of the cell's files; cells that differ only in protocol, limit or data do not share files."""
        rest = hashlib.sha256(f"{self.fingerprint}|{self.limit}|{data_hash}".encode()).hexdigest()[:8]
        repeat = f"-repeat{self.repeat}" if self.repeat else ""
        return f"{self.task.name}-{self.subject.short}-seed{self.seed}{repeat}-{rest}"


def rows_of(cell: Cell, rows: Iterable[ResultRow], data_hash: str | None) -> list[ResultRow]:
    """The current rows of a cell among all rows; `data_hash` None accepts rows over any data."""
    return [
        row
        for row in latest(rows, repeats=True)
        if (row.checkpoint_sha256, row.task, row.protocol, row.seed, row.limit, row.repeat)
        == (cell.subject.sha256, cell.task.name, cell.fingerprint, cell.seed, cell.limit, cell.repeat)
        and (data_hash is None or row.data_hash in ("", data_hash))
    ]


def attempts(cell: Cell, rows: Iterable[ResultRow], run_id: str) -> list[ResultRow]:
    """What the processes of one run wrote about a cell, in file order."""
    return [
        row
        for row in rows
        if row.run_id == run_id
        and (row.checkpoint_sha256, row.task, row.protocol, row.seed, row.limit, row.repeat)
        == (cell.subject.sha256, cell.task.name, cell.fingerprint, cell.seed, cell.limit, cell.repeat)
    ]


def is_finished(cell: Cell, rows: Iterable[ResultRow], data_hash: str) -> bool:
    """Whether every metric of the cell has been measured on this data, or the task does not apply.

    A process killed while it wrote its rows leaves some metrics out; such a cell is not finished.
    """
    own = rows_of(cell, rows, data_hash)
    if any(row.status == "not_applicable" for row in own):
        return True
    measured = {row.metric for row in own if row.status == "ok"}
    return measured >= {metric.name for metric in cell.task.metrics}


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A lock that this process holds."""

    holder_died: bool
    """Whether a process of the same run held it before and ended without giving it back."""


@contextlib.contextmanager
def claim(path: Path, *, wait: bool, holder: str = "") -> Iterator[Claim | None]:
    """Holds the lock file `path`; yields None at once when another process holds it and `wait` is false.

    The lock ends with the process, however it ends, and the file goes away with the lock, unless the process was
    killed.

    Args:
        path: the lock file.
        wait: whether to wait for the other process.
        holder: which run this process belongs to.

    Raises:
        OutputError: the lock file cannot be made.
    """
    try:
        descriptor = _acquire(path, wait)
    except OSError as error:
        raise OutputError(f"cannot lock {path}: {error.strerror or error}; choose another --output-path") from error
    if descriptor is None:
        yield None
        return
    before = os.pread(descriptor, 256, 0).decode(errors="replace")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode(), 0)
    try:
        yield Claim(holder_died=bool(holder) and before == holder)
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, wait: bool) -> int | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        # The previous holder may have removed the file between our open and our lock.
        if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
        os.close(descriptor)
