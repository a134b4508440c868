"""What submitit runs: the command of one cell, in a process of its own.

The standard library only: the process that waits for a cell should not cost the memory of one.
"""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

    def __call__(self) -> int:
        """Runs the command and returns its exit code."""
        with self.log.open("ab") as stream:
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**os.environ, **self.environment},
            )
            try:
                return process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()

    def checkpoint(self) -> Any:
        """Called by submitit before SLURM's time limit, or when the job is preempted: the same job again.

        There is nothing to save: the command goes on from its last interim checkpoint.
        """
        from submitit.helpers import DelayedSubmission  # an extra, there where this is called

        return DelayedSubmission(self)
