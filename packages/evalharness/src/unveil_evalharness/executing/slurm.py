"""``--executor slurm``: jobs handed to SLURM as arrays, and which of them it has already."""

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from unveil_evalharness.console import say
from unveil_evalharness.errors import UsageError, one_line
from unveil_evalharness.executing.cluster import load_submitit, scripts_folder
from unveil_evalharness.executing.job import CellJob
from unveil_evalharness.executing.queue import QueuedJob, ask, queued_jobs, withdraw
from unveil_evalharness.options import RunOptions

__all__ = ["queued_by_name", "sbatch_options", "submit_slurm_jobs"]

_MOST_REQUEUES = 100
_KEPT = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SUBMITIT_PREEMPT_SIGNAL"})


def queued_by_name(options: RunOptions) -> dict[str, QueuedJob]:
    """The jobs of this output folder that SLURM has, by the names of `CellJob`.

    SLURM's queue and submitit's pickles say so, and no notes of ours: a command that was killed while it submitted has
    left jobs without notes. A job without a pickle has nothing to run; it is taken out of the queue.

    Raises:
        DependencyError: submitit is missing.
        UsageError: SLURM is missing or does not answer, or a pickle cannot be read.
    """
    submitit = load_submitit()
    jobs: dict[str, QueuedJob] = {}
    for job in queued_jobs(scripts_folder(options)).values():
        handle = submitit.SlurmJob(scripts_folder(options), job.number)
        if not handle.paths.submitted_pickle.exists():
            say(f"job {job.number}: left by a command that was killed before it had handed over a task; cancelled")
            withdraw(job.number)
            continue
        try:
            jobs[handle.submission().function.name] = job
        except Exception as error:  # whatever a pickle of another version raises
            raise UsageError(
                f"{handle.paths.submitted_pickle} cannot be read ({one_line(error)}); wait for job {job.number}, or "
                "scancel it"
            ) from error
    return jobs


def submit_slurm_jobs(
    jobs: Sequence[CellJob], options: RunOptions, *, submitted: Callable[[CellJob, str], None]
) -> None:
    """Submits the jobs as arrays, of which ``options.devices`` run at once, and returns without waiting.

    More jobs than SLURM's MaxArraySize are several arrays, each of which waits for the end of the one before.

    Args:
        jobs: what to run.
        options: of the run.
        submitted: called with each job and SLURM's number of it, once an array is SLURM's.

    Raises:
        DependencyError: submitit is missing.
        UsageError: SLURM is missing or refuses the jobs.
    """
    submitit = load_submitit()
    size, before = _largest_array(), ""
    for start in range(0, len(jobs), size):
        some = jobs[start : start + size]
        with _outside_of_jobs():
            try:
                executor = submitit.AutoExecutor(
                    scripts_folder(options), cluster="slurm", slurm_max_num_timeout=_MOST_REQUEUES
                )
                executor.update_parameters(**sbatch_options(options, after=before))
                handles = _in_one_batch(executor, some)
            # submitit: FailedJobError is what sbatch said, FailedSubmissionError what it did not say.
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
                said = one_line(error).replace("sbatch: error: ", "")
                raise UsageError(
                    f"--executor slurm: SLURM refused the jobs ({said}); check --cluster.partition and the other "
                    f"--cluster options; jobs submitted by this command: {start}"
                ) from error
            except RuntimeError as error:  # submitit's own, when there is no srun
                raise UsageError(
                    f"--executor slurm: SLURM cannot be used here ({one_line(error)}); run it on a login node, or use "
                    "--executor local"
                ) from error
        for job, handle in zip(some, handles, strict=True):
            submitted(job, handle.job_id)
        before = handles[0].job_id.partition("_")[0]


def sbatch_options(options: RunOptions, *, after: str = "") -> dict[str, Any]:
    """What submitit is told; its names for SLURM's options."""
    cluster = options.cluster
    named = {
        "slurm_partition": cluster.partition,
        "slurm_account": cluster.account,
        "slurm_qos": cluster.qos,
        "slurm_constraint": cluster.constraint,
        "slurm_setup": [cluster.setup] if cluster.setup else None,
        "slurm_dependency": f"afterany:{after}" if after else None,
        "gpus_per_node": cluster.gpus,
        "mem_gb": cluster.mem_gb,
    }
    return {
        "name": cluster.name or f"evalharness-{options.output_path.resolve().name}",
        "timeout_min": cluster.timeout_min,
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": cluster.cpus,
        "slurm_array_parallelism": max(options.devices, 1),
        "slurm_signal_delay_s": cluster.effective_notice_s,
        # Since SLURM 22.05 srun does not take it from sbatch, and would bind the task to one core.
        "slurm_srun_args": [f"--cpus-per-task={cluster.cpus}"],
        "slurm_additional_parameters": {
            "requeue": True,
            # The directory of the shell may be gone when the job starts, or hold modules of other people.
            "chdir": str(scripts_folder(options)),
            **_further(cluster.sbatch),
        },
        **{name: value for name, value in named.items() if value},
    }


def _further(text: str) -> dict[str, str | bool]:
    """Options of sbatch by their names: 'a=b c' is {'a': 'b', 'c': True}.

    Raises:
        UsageError: the text has an open quote, or a name that cannot be one.
    """
    try:
        words = [word.removeprefix("--").partition("=") for word in shlex.split(text)]
    except ValueError as error:
        raise UsageError(f"--cluster.sbatch {text!r}: {error}; give options as 'name=value name'") from error
    for name, _, _ in words:
        if not re.fullmatch(r"[a-z][a-z0-9_-]+", name):
            raise UsageError(f"--cluster.sbatch has {name!r}; give options of sbatch by their long names, name=value")
    return {name.replace("_", "-"): value if equals else True for name, equals, value in words}


def _in_one_batch(executor: Any, jobs: Sequence[CellJob]) -> Sequence[Any]:
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
