"""One job of submitit's for each checkpoint, task and seed; ``--executor local`` runs them on this machine."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from unveil_evalharness.cells import Cell
from unveil_evalharness.console import say
from unveil_evalharness.errors import DependencyError
from unveil_evalharness.executing.job import CellJob
from unveil_evalharness.executing.ranks import RUN_ID_VARIABLE, visible_device
from unveil_evalharness.executing.workers import worker_words
from unveil_evalharness.options import RunOptions

__all__ = ["cell_jobs", "load_submitit", "run_local_jobs", "scripts_folder"]

_LOOK_EVERY = 0.5  # seconds
_YEAR_MINUTES = 60 * 24 * 365  # submitit's local processes need a limit; an evaluation has none


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
            ckpt=(cell.subject.path.absolute(),),
            data_root=options.data_root.resolve(),
            output_path=options.output_path.resolve(),
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
                environment=_environment(task, run_id),
                # SLURM needs some of the notice itself, to put the job into the queue again.
                patience=max(1, options.cluster.effective_notice_s * 2 // 3),
            ),
        )
    return list(jobs.values())


def _environment(task: str, run_id: str | None) -> dict[str, str]:
    """Variables of a job: its run, and where a task of the user's own is imported from: also this directory."""
    variables = {} if run_id is None else {RUN_ID_VARIABLE: run_id}
    if ":" in task:
        places = [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
        variables["PYTHONPATH"] = os.pathsep.join(place for place in places if place)
    return variables


def run_local_jobs(jobs: Sequence[CellJob], options: RunOptions) -> None:
    """Runs the jobs as processes of this machine, ``options.devices`` at once, and waits for all.

    Raises:
        DependencyError: submitit is missing.
    """
    submitit = load_submitit()
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


def _task_word(options: RunOptions, cell: Cell) -> str:
    """What ``--tasks`` calls the cell's task: its name, or the import path of a task of the user's own."""
    if cell.task.name in options.tasks:
        return cell.task.name
    words = [word for word in options.tasks if ":" in word and word.rpartition(":")[2] == type(cell.task).__name__]
    return words[0] if words else cell.task.name


def _start_local(submitit: ModuleType, job: CellJob, options: RunOptions, slot: int) -> Any:
    executor = submitit.LocalExecutor(scripts_folder(options))
    if options.device == "cpu":
        executor.update_parameters(timeout_min=_YEAR_MINUTES)
    else:
        environment = {**job.environment, "CUDA_VISIBLE_DEVICES": visible_device({}, slot)}
        executor.update_parameters(timeout_min=_YEAR_MINUTES)
        job = replace(job, environment=environment)
    say(f"{job.name}: started")
    return executor.submit(job)


def scripts_folder(options: RunOptions) -> Path:
    """Where submitit keeps its scripts, pickles and logs."""
    return options.output_path.resolve() / "submitit"


def load_submitit() -> ModuleType:
    """The package, which is an extra.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise DependencyError(
            "--executor needs submitit, which is not installed; run: pip install 'unveil-evalharness[cluster]'"
        ) from error
    return submitit
