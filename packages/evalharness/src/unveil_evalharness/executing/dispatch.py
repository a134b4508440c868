"""Who evaluates: this process, workers of its own, or jobs of submitit's; the rows are the same."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from unveil_evalharness.cells import Cell, is_finished, rows_of
from unveil_evalharness.console import say
from unveil_evalharness.errors import OutputError
from unveil_evalharness.executing.cluster import cell_jobs, is_active, run_local_jobs, submit_slurm_jobs
from unveil_evalharness.executing.job import CellJob
from unveil_evalharness.executing.ranks import Rank
from unveil_evalharness.executing.workers import run_workers
from unveil_evalharness.grid import build_grid
from unveil_evalharness.options import RunOptions
from unveil_evalharness.results import read_rows
from unveil_evalharness.run import RunSummary, new_run_id, open_session, run
from unveil_evalharness.task import Task
from unveil_evalharness.tasks import load_task

__all__ = ["dispatch"]


def dispatch(
    options: RunOptions, *, rank: Rank | None, summary: RunSummary, load: Callable[[str], Task] = load_task
) -> None:
    """Does what the options ask for; fills `summary`.

    Args:
        options: what to do.
        rank: this process among several that run already; it then evaluates by itself.
        summary: filled while the run proceeds.
        load: gives the task of a name.

    Raises:
        HarnessError: bad input, found before any work begins, or an output folder that cannot be written.
        KeyboardInterrupt: the run was interrupted; processes that it started have ended.
    """
    if rank is not None or (options.executor == "inline" and options.devices == 1):
        run(options, load=load, summary=summary, run_id=None if rank is None else rank.run_id)
        return
    run_id = new_run_id()
    grid = build_grid(options, load)
    session = open_session(options, grid, run_id)
    rows = read_rows(session.results)
    waiting = [
        cell
        for cell in grid.cells
        if options.overwrite or not is_finished(cell, rows, session.data_hash_or_empty(cell.task))
    ]
    if options.executor == "slurm":
        _submit(options, waiting, summary, grid_cells=grid.cells)
        return
    if options.executor == "local":
        run_local_jobs(cell_jobs(options, waiting, run_id=run_id), options)
    elif waiting:
        run_workers(replace(options, devices=min(options.devices, len(waiting))), run_id=run_id)
    # The processes have shared the run of this id; here it is counted, and what a killed one left is done or told.
    run(options, load=load, summary=summary, run_id=run_id)


def _submit(options: RunOptions, waiting: list[Cell], summary: RunSummary, *, grid_cells: list[Cell]) -> None:
    """Hands to SLURM what it does not have yet, and tells what is finished."""
    folder = options.output_path / "submitit" / "jobs"
    jobs = [job for job in cell_jobs(options, waiting, run_id=None) if not _is_submitted(options, folder, job)]
    if jobs:
        numbers = submit_slurm_jobs(jobs, options)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for job, number in zip(jobs, numbers, strict=True):
                (folder / f"{job.name}.json").write_text(json.dumps({"job_id": number}), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {folder}: {error.strerror or error}; the jobs are submitted") from error
        say(f"{len(jobs)} jobs submitted ({numbers[0]} to {numbers[-1]}); the same command tells how far they are")
    rows = read_rows(options.output_path / "results.jsonl")
    for cell in grid_cells:
        summary.rows += rows_of(cell, rows, None)
    summary.num_skipped += len(grid_cells) - len(waiting)


def _is_submitted(options: RunOptions, folder: Path, job: CellJob) -> bool:
    file = folder / f"{job.name}.json"
    if not file.is_file():
        return False
    number = json.loads(file.read_text(encoding="utf-8"))["job_id"]
    active = is_active(options, number)
    if active:
        say(f"{job.name}: SLURM has it as job {number}")
    return active
