"""What submitit runs: the command of one cell, in a process of its own.

No torch: the process that waits for a cell should not cost the memory of one.
"""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unveil_backbones.slurm.stopping import ask_to_end, heed_no_notice, noticing, wait_for

__all__ = ["CellJob"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CellJob:
    """A command as a function without arguments, which submitit can pickle and send to another machine."""

    name: str
    """For people and for file names."""
    command: tuple[str, ...]
    log: Path
    """Where its output goes."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables on top of the job's own."""
    patience: int = 60
    """Seconds that the command gets to save before the job's time limit."""
    _running: list[int] = field(default_factory=list, init=False, repr=False, compare=False)
    """The command's process, while there is one."""

    def __call__(self) -> int:
        """Runs the command and returns its exit code, which becomes that of a SLURM job.

        Raises:
            SystemExit: the command failed, in a SLURM job.
        """
        on_slurm = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
        # At `scancel` and `scontrol requeue` the command gets SIGTERM too: this process sees how it ends.
        alive = noticing() if on_slurm else contextlib.nullcontext()
        with self.log.open("ab", buffering=0) as stream, alive:
            stream.write(f"--- {_attempt()} started {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n".encode())
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**os.environ, **self.environment},
                preexec_fn=heed_no_notice,
            )
            try:
                self._running.append(process.pid)
                code = wait_for(process)
            finally:  # submitit leaves by an exception once SLURM has the job in its queue again
                if process.poll() is None:
                    process.terminate()
                    process.wait()
                self._running.clear()
                stream.write(f"--- {_attempt()} ended with {process.returncode}\n".encode())
        if code != 0 and on_slurm:
            raise SystemExit(code if code > 0 else 128 - code)
        return code

    def checkpoint(self) -> Any:
        """Called by submitit before SLURM's time limit, or when the job is preempted: the same job again.

        The command is asked to end, and goes on from its last interim checkpoint.
        """
        from submitit.helpers import DelayedSubmission  # an extra, there where this is called

        for number in self._running:
            ask_to_end(number, patience=float(self.patience))
        return DelayedSubmission(replace(self))


def _attempt() -> str:
    """Which job this is, as SLURM says, and which start of it."""
    array, own = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_JOB_ID")
    number = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else own
    if number is None:
        return f"process {os.getpid()} on {socket.gethostname()}"
    return f"job {number} (restart {os.environ.get('SLURM_RESTART_COUNT', '0')}) on {socket.gethostname()}"
