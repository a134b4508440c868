"""Cells of a sweep as jobs of SLURM."""

from collections.abc import Callable, Sequence
from pathlib import Path

from unveil_backbones.slurm import arrays
from unveil_backbones.slurm.queue import QueuedJob

from unveil_pretrain.sweeping.executors import Resources, load_submitit
from unveil_pretrain.sweeping.job import CellJob

__all__ = ["job_settings", "logs_of", "queued_cells", "scripts_folder", "submit"]


def scripts_folder(folder: Path) -> Path:
    """Where submitit keeps its scripts, pickles and logs."""
    return folder.resolve() / "submitit"


def logs_of(folder: Path, number: str) -> Path:
    """What a job said outside of its cell's own log."""
    return arrays.log_of(scripts_folder(folder), number)


def queued_cells(folder: Path, log: Callable[[str], None]) -> dict[str, QueuedJob]:
    """The cells that SLURM has, by their names.

    Args:
        folder: Of the sweep.
        log: Receives a line for each job that a killed command left without a cell; it is taken out of the queue.

    Raises:
        SweepError: submitit is missing.
        SlurmError: SLURM is missing or does not answer, or a pickle cannot be read.
    """
    return arrays.queued_by_name(load_submitit(), scripts_folder(folder), log)


def submit(
    jobs: Sequence[CellJob], resources: Resources, *, at_once: int, submitted: Callable[[CellJob, str], None]
) -> None:
    """Submit cells as arrays, of which `at_once` run at the same time.

    Args:
        jobs: The cells.
        resources: What each gets.
        at_once: Cells at the same time.
        submitted: Called with each cell and the number of its job, once an array is SLURM's.

    Raises:
        SweepError: submitit is missing.
        SlurmError: SLURM is missing or refuses the jobs.
    """
    folder = jobs[0].folder
    settings = job_settings(folder, resources, at_once=at_once)
    arrays.submit(load_submitit(), scripts_folder(folder), jobs, settings, submitted=submitted)


def job_settings(folder: Path, resources: Resources, *, at_once: int) -> arrays.JobSettings:
    """What each cell of a sweep's folder gets from SLURM."""
    return arrays.JobSettings(
        name=resources.name or f"pretrain-{folder.resolve().name}",
        at_once=at_once,
        cpus=resources.slurm_cpus,
        gpus=resources.gpus,
        mem_gb=resources.mem_gb,
        timeout_min=resources.timeout_min,
        notice_s=resources.slurm_notice_s,
        max_requeues=resources.max_requeues,
        partition=resources.partition,
        account=resources.account,
        qos=resources.qos,
        constraint=resources.constraint,
        setup=resources.setup,
        sbatch=resources.sbatch,
        flags="--",
    )
