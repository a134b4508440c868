"""``--executor slurm``: an output folder's jobs on SLURM, and SLURM's errors as those of the command line."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from unveil_backbones.errors import SlurmError
from unveil_backbones.slurm import arrays
from unveil_backbones.slurm.queue import QueuedJob

from unveil_evalharness.console import say
from unveil_evalharness.errors import UsageError
from unveil_evalharness.executing.cluster import load_submitit, scripts_folder
from unveil_evalharness.executing.job import CellJob
from unveil_evalharness.options import RunOptions

__all__ = ["log_of", "queued_by_name", "submit_slurm_jobs"]

_MOST_REQUEUES: Final = 100


def log_of(options: RunOptions, number: str) -> Path:
    """What a job said outside of its task's own log."""
    return arrays.log_of(scripts_folder(options), number)


def queued_by_name(options: RunOptions) -> dict[str, QueuedJob]:
    """The jobs of this output folder that SLURM has, by the names of `CellJob`.

    Raises:
        DependencyError: submitit is missing.
        UsageError: SLURM is missing or does not answer, or a pickle cannot be read.
    """
    submitit = load_submitit()
    with _usage_errors():
        return arrays.queued_by_name(submitit, scripts_folder(options), say)


def submit_slurm_jobs(
    jobs: Sequence[CellJob], options: RunOptions, *, submitted: Callable[[CellJob, str], None]
) -> None:
    """Submits the jobs as arrays, of which ``options.devices`` run at once, and returns without waiting.

    Args:
        jobs: what to run.
        options: of the run.
        submitted: called with each job and SLURM's number of it, once an array is SLURM's.

    Raises:
        DependencyError: submitit is missing.
        UsageError: SLURM is missing or refuses the jobs.
    """
    submitit = load_submitit()
    with _usage_errors():
        arrays.submit(submitit, scripts_folder(options), jobs, _settings(options), submitted=submitted)


def _settings(options: RunOptions) -> arrays.JobSettings:
    cluster = options.cluster
    return arrays.JobSettings(
        name=cluster.name or f"evalharness-{options.output_path.resolve().name}",
        at_once=max(options.devices, 1),
        cpus=cluster.cpus,
        gpus=cluster.gpus,
        mem_gb=cluster.mem_gb,
        timeout_min=cluster.timeout_min,
        notice_s=cluster.effective_notice_s,
        max_requeues=_MOST_REQUEUES,
        partition=cluster.partition,
        account=cluster.account,
        qos=cluster.qos,
        constraint=cluster.constraint,
        setup=cluster.setup,
        sbatch=cluster.sbatch,
        flags="--cluster.",
    )


@contextmanager
def _usage_errors() -> Iterator[None]:
    try:
        yield
    except SlurmError as error:
        raise UsageError(f"--executor slurm: {error}") from error
