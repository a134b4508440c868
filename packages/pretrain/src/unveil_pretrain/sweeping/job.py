"""What submitit runs for a cell: the cell's command, its log, a lock while it runs, and a record of how it ended.

The standard library only: the process that waits for a cell should not cost the memory of one.
"""

import fcntl
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

__all__ = ["CellJob", "is_locked", "read_outcome"]

_ERROR = "pretrain: error: "


@dataclass(frozen=True, kw_only=True, slots=True)
class CellJob:
    """A cell as a function without arguments, which submitit can pickle and send to another machine."""

    name: str
    """The cell's name."""
    command: tuple[str, ...]
    """Its command line."""
    folder: Path
    """Folder of the sweep, on a disk that all machines share."""
    threads: int
    """OMP_NUM_THREADS of the cell; 0 leaves it as it is."""

    def __call__(self) -> int:
        """Run the command, and return its exit code; does nothing if the cell is already running.

        Raises:
            OSError: the folder of the sweep cannot be written.
        """
        with lock_file(self.folder, self.name).open("a") as lock:
            if not _take(lock):
                return 0
            return self._run(lock)

    def checkpoint(self) -> Any:
        """Called by submitit before SLURM's time limit, or when the job is preempted: the same job again.

        There is nothing to save: the command continues from the last checkpoint of its own.
        """
        from submitit.helpers import DelayedSubmission  # an extra, there where this is called

        return DelayedSubmission(self)

    def _run(self, lock: IO[str]) -> int:
        log = self.folder / "logs" / f"{self.name}.log"
        started = time.time()
        with log.open("ab") as stream:
            offset = stream.tell()
            # The command inherits the lock: it is held until the last process of the cell has ended.
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=self._environment(),
                pass_fds=(lock.fileno(),),
            )
            try:
                code = process.wait()
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        reason = None if code == 0 else _reason(log, offset, code)
        record = {"code": code, "reason": reason, "seconds": time.time() - started}
        _write(outcome_file(self.folder, self.name), json.dumps(record) + "\n")
        return code

    def _environment(self) -> dict[str, str]:
        limits = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} if self.threads else {}
        return {**os.environ, **limits}


def lock_file(folder: Path, name: str) -> Path:
    """The file that a running cell has locked."""
    return folder / "locks" / f"{name}.lock"


def outcome_file(folder: Path, name: str) -> Path:
    """Where a cell says how it ended."""
    return folder / "outcomes" / f"{name}.json"


def is_locked(folder: Path, name: str) -> bool:
    """Whether the cell runs on this machine, or on one that shares locks with it."""
    file = lock_file(folder, name)
    if not file.exists():
        return False
    with file.open("a") as lock:
        return not _take(lock)


def read_outcome(folder: Path, name: str) -> dict[str, Any] | None:
    """How the cell's last attempt ended: code, reason, seconds; None while it runs, or if it was killed."""
    file = outcome_file(folder, name)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def _take(lock: IO[str]) -> bool:
    """Lock the file, if nobody else has; closing it, or the end of the process, gives it back."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _reason(log: Path, offset: int, code: int) -> str:
    """One line about a command that failed: its own message, or the last thing it said, or the signal."""
    with log.open("rb") as stream:
        stream.seek(offset)
        text = stream.read().decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(_ERROR)]
    if said:
        return said[-1].removeprefix(_ERROR)
    if code < 0:
        killed = f"ended by {signal.Signals(-code).name}"
        return f"{killed}; the system may have been out of memory" if -code == signal.SIGKILL else killed
    return f"exit code {code}: {lines[-1] if lines else 'it said nothing'}"


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
