"""``--executor local|slurm``: one job of submitit's for each checkpoint, task and seed."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from unveil_evalharness.cells import Cell
from unveil_evalharness.console import say
from unveil_evalharness.errors import DependencyError, UsageError, one_line
from unveil_evalharness.executing.job import CellJob
from unveil_evalharness.executing.ranks import RUN_ID_VARIABLE, visible_device
from unveil_evalharness.executing.workers import worker_words
from unveil_evalharness.options import ClusterOptions, RunOptions

__all__ = ["cell_jobs", "is_active", "run_local_jobs", "submit_slurm_jobs"]

_LOOK_EVERY = 0.5  # seconds
_YEAR_MINUTES = 60 * 24 * 365  # submitit's local processes need a limit; an evaluation has none
_MOST_REQUEUES = 100
_ACTIVE = frozenset(
    {"PENDING", "RUNNING", "REQUEUED", "REQUEUE_HOLD", "RESIZING", "SUSPENDED", "COMPLETING", "CONFIGURING", "READY"}
)


def cell_jobs(options: RunOptions, cells: Sequence[Cell], *, run_id: str | None) -> list[CellJob]:
    """The jobs of some cells, one for all repeats of a checkpoint, task and seed.

    Args:
        options: of the whole run.
        cells: what is to be done.
        run_id: name of the run that the jobs share with this process. None lets each start of a job be a run of its
            own, so that a job that SLURM stopped and started again goes on, and is not taken for one that failed.
    """
    jobs: dict[str, CellJob] = {}
    for cell in cells:
        name = f"{cell.task.name}-{cell.subject.short}-seed{cell.seed}"
        task = _task_word(options, cell)
        own = replace(
            options,
            ckpt=(cell.subject.path,),
            tasks=(task,),
            protocol=tuple(entry for entry in options.protocol if entry.startswith(f"{task}=")),
            seeds=(cell.seed,),
        )
        jobs.setdefault(
            name,
            CellJob(
                name=name,
                command=tuple(worker_words(own, progress=False)),
                log=options.output_path.resolve() / "logs" / f"job-{name}.log",
                environment={} if run_id is None else {RUN_ID_VARIABLE: run_id},
            ),
        )
    return list(jobs.values())


def run_local_jobs(jobs: Sequence[CellJob], options: RunOptions) -> None:
    """Runs the jobs as processes of this machine, ``options.devices`` at once, and waits for all.

    Raises:
        DependencyError: submitit is missing.
    """
    submitit = _submitit()
    waiting, running = list(jobs), dict[int, tuple[CellJob, Any]]()
    try:
        while waiting or running:
            for slot, (job, handle) in list(running.items()):
                if handle.done():
                    say(f"{job.name}: {handle.state.lower()}")
                    del running[slot]
            while waiting and len(running) < options.devices:
                slot = min(set(range(options.devices)) - running.keys())
                running[slot] = (waiting[0], _start_local(submitit, waiting.pop(0), options, slot))
            time.sleep(_LOOK_EVERY if running else 0)
    finally:
        for _, handle in running.values():
            handle.cancel()


def submit_slurm_jobs(jobs: Sequence[CellJob], options: RunOptions) -> list[str]:
    """Submits the jobs as one array, of which ``options.devices`` run at once, and returns without waiting.

    Returns:
        SLURM's job numbers.

    Raises:
        DependencyError: submitit is missing.
        UsageError: SLURM is missing or refuses the jobs.
    """
    submitit = _submitit()
    cluster = options.cluster
    try:
        executor = submitit.AutoExecutor(
            _folder(options), cluster="slurm", slurm_max_num_timeout=_MOST_REQUEUES, slurm_python=sys.executable
        )
        executor.update_parameters(
            name="evalharness",
            timeout_min=cluster.timeout_min,
            nodes=1,
            tasks_per_node=1,
            cpus_per_task=cluster.cpus,
            slurm_array_parallelism=max(options.devices, 1),
            slurm_additional_parameters={"requeue": True},
            **_named(cluster),
        )
        with executor.batch():
            handles = [executor.submit(job) for job in jobs]
    except RuntimeError as error:  # submitit's own, when there is no srun
        raise UsageError(
            f"--executor slurm: SLURM cannot be used here ({one_line(error)}); run it on a login node, or use "
            "--executor local"
        ) from error
    except submitit.core.utils.FailedSubmissionError as error:
        raise UsageError(f"--executor slurm: SLURM refused the jobs ({one_line(error)}); check --cluster.*") from error
    return [handle.job_id for handle in handles]


def is_active(options: RunOptions, job_id: str) -> bool:
    """Whether SLURM still has the job, waiting or running.

    Raises:
        DependencyError: submitit is missing.
        UsageError: SLURM cannot be asked here.
    """
    submitit = _submitit()
    try:
        state = submitit.SlurmJob(_folder(options), job_id).watcher.get_state(job_id, mode="force")
    except (OSError, RuntimeError) as error:
        raise UsageError(f"SLURM cannot be asked about job {job_id} ({one_line(error)}); use a login node") from error
    return state.split()[0].rstrip("+") in _ACTIVE


def _task_word(options: RunOptions, cell: Cell) -> str:
    """What ``--tasks`` calls the cell's task: its name, or the import path of a task of the user's own."""
    if cell.task.name in options.tasks:
        return cell.task.name
    words = [word for word in options.tasks if ":" in word and word.rpartition(":")[2] == type(cell.task).__name__]
    return words[0] if words else cell.task.name


def _start_local(submitit: ModuleType, job: CellJob, options: RunOptions, slot: int) -> Any:
    executor = submitit.LocalExecutor(_folder(options))
    if options.device == "cpu":
        executor.update_parameters(timeout_min=_YEAR_MINUTES)
    else:
        environment = {**job.environment, "CUDA_VISIBLE_DEVICES": visible_device({}, slot)}
        executor.update_parameters(timeout_min=_YEAR_MINUTES)
        job = replace(job, environment=environment)
    say(f"{job.name}: started")
    return executor.submit(job)


def _folder(options: RunOptions) -> Path:
    return options.output_path.resolve() / "submitit"


def _named(cluster: ClusterOptions) -> dict[str, Any]:
    """SLURM's own options, those that are given."""
    options = {
        "slurm_partition": cluster.partition,
        "slurm_account": cluster.account,
        "slurm_qos": cluster.qos,
        "slurm_constraint": cluster.constraint,
        "gpus_per_node": cluster.gpus,
        "mem_gb": cluster.mem_gb,
    }
    return {name: value for name, value in options.items() if value}


def _submitit() -> ModuleType:
    try:
        import submitit
    except ImportError as error:
        raise DependencyError(
            "--executor needs submitit, which is not installed; run: pip install 'unveil-evalharness[cluster]'"
        ) from error
    return submitit
