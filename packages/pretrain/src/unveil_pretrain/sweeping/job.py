"""What submitit runs for a cell: the cell's command, its log, a lock while it runs, and a record of how it ended.

No torch: the process that waits for a cell should not cost the memory of one.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from unveil_backbones.limits import parse_json
from unveil_backbones.slurm.stopping import ask_to_end, heed_no_notice, noticing, wait_for

__all__ = ["CellJob", "attempts_file", "is_locked", "read_outcome"]

_ERROR = "pretrain: error: "
_STOPPED = frozenset({-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT})


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
    patience: int = 60
    """Seconds that the command gets to save before the job's time limit."""
    _running: list[int] = field(default_factory=list, init=False, repr=False, compare=False)
    """The command's process, while there is one."""

    def __call__(self) -> int:
        """Run the command, and return its exit code; waits while another process works on the cell.

        That process may be what a broken node left behind: the cell is not run twice at the same time, and if the
        other one does not finish it, this one does. In a SLURM job the exit code becomes that of the job.

        Raises:
            OSError: the folder of the sweep cannot be written.
            SystemExit: the command failed, in a SLURM job.
        """
        with lock_file(self.folder, self.name).open("a") as lock:
            if not _take(lock):
                sys.stderr.write(f"{self.name}: another process works on it; waiting for {lock.name}\n")
                sys.stderr.flush()
                fcntl.flock(lock, fcntl.LOCK_EX)
            code = self._run(lock)
        if code != 0 and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            raise SystemExit(code if code > 0 else 128 - code)
        return code

    def checkpoint(self) -> Any:
        """Called by submitit before SLURM's time limit, or when the job is preempted: the same job again.

        The command is asked to save and to end, so that nothing is lost, and continues from there.
        """
        from submitit.helpers import DelayedSubmission  # an extra, there where this is called

        for number in self._running:
            ask_to_end(number, patience=float(self.patience))
        return DelayedSubmission(replace(self))

    def _run(self, lock: IO[str]) -> int:
        log = self.folder / "logs" / f"{self.name}.log"
        started = time.monotonic()
        with log.open("ab") as stream, noticing() as notice:
            offset = stream.tell()
            # The command inherits the lock: it is held until the last process of the cell has ended.
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=self._environment(),
                pass_fds=(lock.fileno(),),
                preexec_fn=heed_no_notice,
            )
            try:
                self._running.append(process.pid)
                self._note("started", command=process.pid)
                code = wait_for(process)
            finally:  # submitit leaves by an exception once SLURM has the job in its queue again
                if process.poll() is None:
                    process.kill()
                    process.wait()
                self._running.clear()
                self._note("ended", code=process.returncode)
        stopped = code != 0 and (notice.stopped or code in _STOPPED)
        reason = None if code == 0 else _reason(log, offset, code)
        record = {"code": code, "reason": reason, "seconds": time.monotonic() - started, "stopped": stopped}
        _write(outcome_file(self.folder, self.name), json.dumps(record) + "\n")
        return code

    def _note(self, event: str, *, command: int | None = None, code: int | None = None) -> None:
        """Add a line to the record of attempts; the lock is held, so that no other line comes between."""
        job = os.environ.get("SLURM_ARRAY_JOB_ID")
        job = f"{job}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if job else os.environ.get("SLURM_JOB_ID")
        row = {
            "time": time.time(),
            "event": event,
            "job": job,
            "restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            "host": socket.gethostname(),
            "process": os.getpid(),
            "command": command,
            "code": code,
        }
        file = attempts_file(self.folder, self.name)
        file.parent.mkdir(exist_ok=True)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({name: value for name, value in row.items() if value is not None}) + "\n")

    def _environment(self) -> dict[str, str]:
        limits = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} if self.threads else {}
        return {**os.environ, **limits}


def lock_file(folder: Path, name: str) -> Path:
    """The file that a running cell has locked."""
    return folder / "locks" / f"{name}.lock"


def outcome_file(folder: Path, name: str) -> Path:
    """Where a cell says how it ended."""
    return folder / "outcomes" / f"{name}.json"


def attempts_file(folder: Path, name: str) -> Path:
    """Where each start and end of a cell's command is written down, with its job and machine."""
    return folder / "attempts" / f"{name}.jsonl"


def is_locked(folder: Path, name: str) -> bool:
    """Whether the cell runs on this machine, or on one that shares locks with it."""
    file = lock_file(folder, name)
    if not file.exists():
        return False
    with file.open("a") as lock:
        return not _take(lock)


def read_outcome(folder: Path, name: str) -> dict[str, Any] | None:
    """How the cell's last attempt ended: code, reason, seconds, stopped; None while it runs, or if it was killed."""
    with contextlib.suppress(FileNotFoundError):
        return parse_json(outcome_file(folder, name).read_text(encoding="utf-8"))
    return None


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
