"""What SLURM's queue holds of a folder's jobs.

The controller is asked (`squeue`), not the accounting (`sacct`), which many clusters run late and some not at all: a
job that has left the controller's queue has ended, and one that is in it will run or runs.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from unveil_backbones.errors import SlurmError

__all__ = ["QueuedJob", "ask", "has_slurm", "queued_jobs", "withdraw"]

_PATIENCE = 120  # seconds; a controller that is not there is told after a few


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedJob:
    """A job that waits or runs."""

    number: str
    """As SLURM writes it: 12, or 12_3 for a member of an array."""
    state: str
    """PENDING, RUNNING, COMPLETING, ..."""
    reason: str
    """Why it waits; None where it does not."""

    def __str__(self) -> str:
        """For people."""
        return f"job {self.number}: {self.state}" + (f", {self.reason}" if self.reason != "None" else "")


def has_slurm() -> bool:
    """Whether SLURM's commands are on the path."""
    return all(shutil.which(name) for name in ("sbatch", "squeue", "srun", "scontrol"))


def queued_jobs(scripts: Path) -> dict[str, QueuedJob]:
    """The jobs whose batch scripts lie in a folder, by their numbers; whoever asks, they are those of its owner.

    Args:
        scripts: Folder that submitit writes into, without symbolic links.

    Raises:
        SlurmError: SLURM's commands are missing, or its controller does not answer.
    """
    if not scripts.is_dir():
        return {}
    # Members of arrays one by one; the script's path last, as it may contain anything.
    owner = f"--user={scripts.stat().st_uid}"
    listed = ask("squeue", owner, "--noheader", "--array", "--format=%i|%T|%r|%o")
    jobs: dict[str, QueuedJob] = {}
    for line in listed.splitlines():
        number, state, reason, script = line.strip().split("|", 3)
        if Path(script).parent == scripts:
            jobs[number] = QueuedJob(number=number, state=state, reason=reason)
    return jobs


def withdraw(number: str) -> None:
    """Take a job out of the queue.

    Raises:
        SlurmError: SLURM's commands are missing, or its controller does not answer.
    """
    ask("scancel", number)


def ask(*command: str) -> str:
    """What one of SLURM's commands prints.

    Raises:
        SlurmError: it is missing, fails, or takes minutes.
    """
    # SQUEUE_STATES and its like, which some people have in their profile, would hide jobs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_PATIENCE, env=environment, errors="replace"
        )
    except FileNotFoundError as error:
        raise SlurmError(
            f"SLURM cannot be used here (there is no {command[0]}); run it on a login node, or use --executor local"
        ) from error
    except (OSError, subprocess.SubprocessError) as error:
        said = (error.stderr if isinstance(error, subprocess.CalledProcessError) else "") or str(error)
        raise SlurmError(
            f"SLURM does not answer ({' '.join(said.split())}); jobs that it has go on; give the command again later"
        ) from error
    return done.stdout
