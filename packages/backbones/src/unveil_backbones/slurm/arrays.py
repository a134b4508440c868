"""Handing jobs to SLURM: submitit's executor, as arrays, and which jobs SLURM has already.

A job is a function without arguments that has a name and can be pickled. submitit is an extra of the packages that call
this; they pass the module.
"""

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from unveil_backbones.errors import SlurmError
from unveil_backbones.slurm.queue import QueuedJob, ask, queued_jobs, withdraw

__all__ = ["JobSettings", "NamedJob", "log_of", "notice_within", "queued_by_name", "sbatch_options", "submit"]

_KEPT: Final = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SUBMITIT_PREEMPT_SIGNAL"})


@runtime_checkable
class NamedJob(Protocol):
    """What SLURM is to run."""

    @property
    def name(self) -> str:
        """Of this job alone among those of a folder."""
        ...

    def __call__(self) -> object:
        """Does the work, on some node."""
        ...


_Job = TypeVar("_Job", bound=NamedJob)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSettings:
    """What each job gets."""

    name: str
    """What SLURM's queue calls the jobs."""
    at_once: int
    """How many run at the same time."""
    cpus: int
    """Cores."""
    gpus: int
    """GPUs; 0 asks for none."""
    mem_gb: float
    """Main memory in GB; 0 leaves it to the cluster."""
    timeout_min: int
    """Minutes after which a job is stopped and put back into the queue."""
    notice_s: int
    """Seconds before that at which it is told."""
    max_requeues: int
    """How often it may be put back."""
    partition: str
    account: str
    qos: str
    constraint: str
    """These four as sbatch takes them; empty ones are left to the cluster."""
    setup: str
    """A shell command that runs before the job on its node."""
    sbatch: str
    """Further options of sbatch, as 'reservation=night exclusive'; they count last."""
    flags: str
    """How the command line spells these settings, for messages: "--" for --partition."""


def notice_within(timeout_min: int, notice_s: int) -> int:
    """Seconds between the notice and the time limit: those asked for, and at most a quarter of the limit."""
    return max(1, min(notice_s, timeout_min * 60 // 4))


def log_of(scripts: Path, number: str) -> Path:
    """What a job said outside of its command's own log.

    Args:
        scripts: Folder that submitit writes into.
        number: The job's, as SLURM writes it.
    """
    return scripts / f"{number}_0_log.err"


def queued_by_name(submitit: ModuleType, scripts: Path, log: Callable[[str], None]) -> dict[str, QueuedJob]:
    """The jobs of a folder that SLURM has, by their names.

    SLURM's queue and submitit's pickles say so, and no notes of ours: a command that was killed while it submitted has
    left jobs without notes. A job without a pickle has nothing to run; it is taken out of the queue.

    Args:
        submitit: The package.
        scripts: Folder that it writes into, without symbolic links.
        log: Receives a line for each job that is taken out.

    Raises:
        SlurmError: SLURM is missing or does not answer, or a pickle cannot be read.
    """
    jobs: dict[str, QueuedJob] = {}
    for job in queued_jobs(scripts).values():
        handle = submitit.SlurmJob(scripts, job.number)
        if not handle.paths.submitted_pickle.exists():
            log(f"job {job.number}: left by a command that was killed before it had handed over its work; cancelled")
            withdraw(job.number)
            continue
        try:
            jobs[handle.submission().function.name] = job
        except Exception as error:  # whatever a pickle of another version raises
            raise SlurmError(
                f"{handle.paths.submitted_pickle} cannot be read ({' '.join(repr(error).split())}); wait for job "
                f"{job.number}, or scancel it"
            ) from error
    return jobs


def submit(
    submitit: ModuleType,
    scripts: Path,
    jobs: Sequence[_Job],
    settings: JobSettings,
    *,
    submitted: Callable[[_Job, str], None],
) -> None:
    """Submit jobs as arrays, and return without waiting.

    More jobs than SLURM's MaxArraySize are several arrays, each of which waits for the end of the one before.

    Args:
        submitit: The package.
        scripts: Folder that it writes into, without symbolic links.
        jobs: What to run.
        settings: What each gets.
        submitted: Called with each job and its number, once an array is SLURM's.

    Raises:
        SlurmError: SLURM is missing or refuses the jobs.
    """
    size, before = _largest_array(), ""
    for start in range(0, len(jobs), size):
        some = jobs[start : start + size]
        with _outside_of_jobs():
            try:
                executor = submitit.AutoExecutor(scripts, cluster="slurm", slurm_max_num_timeout=settings.max_requeues)
                executor.update_parameters(**sbatch_options(scripts, settings, after=before))
                with executor.batch():
                    handles = [executor.submit(job) for job in some]
            # submitit: FailedJobError is what sbatch said, FailedSubmissionError what it did not say.
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
                said = " ".join(str(error).replace("sbatch: error: ", "").split())
                named = ("partition", "account", "qos", "cpus", "mem-gb", "gpus", "timeout-min", "sbatch")
                raise SlurmError(
                    f"SLURM refused the jobs ({said}); check {', '.join(settings.flags + name for name in named)}; "
                    f"jobs submitted by this command: {start}"
                ) from error
            except RuntimeError as error:  # submitit's own, when there is no srun
                raise SlurmError(
                    f"SLURM cannot be used here ({error}); run it on a login node, or use --executor local"
                ) from error
        for job, handle in zip(some, handles, strict=True):
            submitted(job, handle.job_id)
        before = handles[0].job_id.partition("_")[0]


def sbatch_options(scripts: Path, settings: JobSettings, *, after: str = "") -> dict[str, Any]:
    """What submitit is told; its names for SLURM's options.

    Raises:
        SlurmError: `settings.sbatch` has an open quote, or a name that cannot be one.
    """
    named = {
        "slurm_partition": settings.partition,
        "slurm_account": settings.account,
        "slurm_qos": settings.qos,
        "slurm_constraint": settings.constraint,
        "slurm_setup": [settings.setup] if settings.setup else None,
        "slurm_dependency": f"afterany:{after}" if after else None,
        "gpus_per_node": settings.gpus,
        "mem_gb": settings.mem_gb,
    }
    return {
        "name": settings.name,
        "timeout_min": settings.timeout_min,
        "tasks_per_node": 1,
        "nodes": 1,
        "cpus_per_task": settings.cpus,
        "slurm_array_parallelism": settings.at_once,
        "slurm_signal_delay_s": settings.notice_s,
        # Since SLURM 22.05 srun does not take it from sbatch, and would bind the job to one core.
        "slurm_srun_args": [f"--cpus-per-task={settings.cpus}"],
        "slurm_additional_parameters": {
            "requeue": True,
            # The directory of the shell may be gone when the job starts, or hold modules of other people.
            "chdir": str(scripts),
            **_further(settings.sbatch, settings.flags),
        },
        **{name: value for name, value in named.items() if value},
    }


def _further(text: str, flags: str) -> dict[str, str | bool]:
    """Options of sbatch by their names: 'a=b c' is {'a': 'b', 'c': True}."""
    try:
        words = [word.removeprefix("--").partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise SlurmError(f"{flags}sbatch {text!r}: {error}; give options as 'name=value name'") from error
    for name, _, _ in words:
        if not re.fullmatch(r"[a-z][a-z0-9_-]+", name):
            raise SlurmError(f"{flags}sbatch has {name!r}; give options of sbatch by their long names, name=value")
    return {name.replace("_", "-"): value if equals else True for name, equals, value in words}


def _largest_array() -> int:
    """How many jobs an array may have here."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    # The setting bounds the indices, which start at 0.
    return max(1, int(found[1])) if found else 1


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide what SLURM tells the processes of a job: in a job on a login node, sbatch would take it for options."""
    hidden = {}
    if "SLURM_JOB_ID" in os.environ:
        prefixes = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
        hidden = {name: value for name, value in os.environ.items() if name.startswith(prefixes) and name not in _KEPT}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
