"""Handing cells to SLURM: submitit's executor, as arrays, and which cells SLURM has already."""

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unveil_pretrain.errors import SweepError
from unveil_pretrain.sweeping.executors import Handle, Resources, load_submitit
from unveil_pretrain.sweeping.job import CellJob
from unveil_pretrain.sweeping.queue import QueuedJob, ask, queued_jobs, withdraw

__all__ = ["logs_of", "queued_cells", "sbatch_options", "scripts_folder", "submit"]

_KEPT = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SUBMITIT_PREEMPT_SIGNAL"})


def scripts_folder(folder: Path) -> Path:
    """Where submitit keeps its scripts, pickles and logs."""
    return folder.resolve() / "submitit"


def logs_of(folder: Path, number: str) -> Path:
    """What a job said outside of its cell's own log."""
    return scripts_folder(folder) / f"{number}_0_log.err"


def queued_cells(folder: Path, log: Callable[[str], None]) -> dict[str, QueuedJob]:
    """The cells that SLURM has, by their names.

    SLURM's queue and submitit's pickles say so, and not our diary: a command that was killed while it submitted has
    left jobs that no diary knows. A job without a pickle has nothing to run; it is taken out of the queue.

    Args:
        folder: Of the sweep.
        log: Receives a line for each job that is taken out.

    Raises:
        SweepError: SLURM or submitit is missing, or a pickle cannot be read.
    """
    submitit = load_submitit()
    cells: dict[str, QueuedJob] = {}
    for job in queued_jobs(scripts_folder(folder)).values():
        handle = submitit.SlurmJob(scripts_folder(folder), job.number)
        if not handle.paths.submitted_pickle.exists():
            log(f"job {job.number}: left by a command that was killed before it had handed over a cell; cancelled")
            withdraw(job.number)
            continue
        try:
            cells[handle.submission().function.name] = job
        except Exception as error:  # whatever a pickle of another version raises
            raise SweepError(
                f"{handle.paths.submitted_pickle} cannot be read ({error!r}); wait for job {job.number}, or scancel it"
            ) from error
    return cells


def submit(
    jobs: Sequence[CellJob], resources: Resources, *, at_once: int, submitted: Callable[[CellJob, str], None]
) -> None:
    """Submit cells as arrays, of which `at_once` run at the same time.

    More cells than SLURM's MaxArraySize are several arrays, each of which waits for the end of the one before.

    Args:
        jobs: The cells.
        resources: What each gets.
        at_once: Cells at the same time.
        submitted: Called with each cell and the number of its job, once an array is SLURM's.

    Raises:
        SweepError: submitit or SLURM is missing, or SLURM refuses the jobs.
    """
    submitit = load_submitit()
    folder = jobs[0].folder
    size = _largest_array()
    before = ""
    for start in range(0, len(jobs), size):
        some = jobs[start : start + size]
        with _outside_of_jobs():
            try:
                executor = submitit.AutoExecutor(
                    scripts_folder(folder), cluster="slurm", slurm_max_num_timeout=resources.max_requeues
                )
                executor.update_parameters(**sbatch_options(folder, resources, at_once=at_once, after=before))
                handles = _in_one_batch(executor, some)
            # submitit: FailedJobError is what sbatch said, FailedSubmissionError what it did not say.
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
                said = " ".join(str(error).replace("sbatch: error: ", "").split())
                raise SweepError(
                    f"SLURM refused the cells ({said}); check --partition, --account, --qos, --cpus, "
                    f"--mem-gb, --gpus, --timeout-min and --sbatch; cells submitted by this command: {start}"
                ) from error
            except RuntimeError as error:  # submitit's own, when there is no srun
                raise SweepError(
                    f"SLURM cannot be used here ({error}); run it on a login node, or with --executor local"
                ) from error
        for job, handle in zip(some, handles, strict=True):
            submitted(job, handle.job_id)
        before = handles[0].job_id.partition("_")[0]


def sbatch_options(folder: Path, resources: Resources, *, at_once: int, after: str = "") -> dict[str, Any]:
    """What submitit is told; its names for SLURM's options."""
    named = {
        "slurm_partition": resources.partition,
        "slurm_account": resources.account,
        "slurm_qos": resources.qos,
        "slurm_constraint": resources.constraint,
        "slurm_setup": [resources.setup] if resources.setup else None,
        "slurm_dependency": f"afterany:{after}" if after else None,
        "gpus_per_node": resources.gpus,
        "mem_gb": resources.mem_gb,
    }
    return {
        "name": resources.name or f"pretrain-{folder.resolve().name}",
        "timeout_min": resources.timeout_min,
        "tasks_per_node": 1,
        "nodes": 1,
        "cpus_per_task": resources.slurm_cpus,
        "slurm_array_parallelism": at_once,
        "slurm_signal_delay_s": resources.slurm_notice_s,
        # Since SLURM 22.05 srun does not take it from sbatch, and would bind the cell to one core.
        "slurm_srun_args": [f"--cpus-per-task={resources.slurm_cpus}"],
        "slurm_additional_parameters": {
            "requeue": True,
            # The directory of the shell may be gone when the job starts, or hold modules of other people.
            "chdir": str(scripts_folder(folder)),
            **_further(resources.sbatch),
        },
        **{name: value for name, value in named.items() if value},
    }


def _further(text: str) -> dict[str, str | bool]:
    """Options of sbatch by their names: 'a=b c' is {'a': 'b', 'c': True}.

    Raises:
        SweepError: the text has an open quote, or a name that cannot be one.
    """
    try:
        words = [word.removeprefix("--").partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise SweepError(f"--sbatch {text!r}: {error}; give options as 'name=value name'") from error
    for name, _, _ in words:
        if not re.fullmatch(r"[a-z][a-z0-9_-]+", name):
            raise SweepError(f"--sbatch has {name!r}; give options of sbatch by their long names, name=value")
    return {name.replace("_", "-"): value if equals else True for name, equals, value in words}


def _in_one_batch(executor: Any, jobs: Sequence[CellJob]) -> Sequence[Handle]:
    with executor.batch():
        return [executor.submit(job) for job in jobs]


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
