"""Who evaluates: this process, workers of its own, or jobs of submitit's; the rows are the same."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from unveil_backbones.limits import parse_json
from unveil_backbones.slurm.queue import QueuedJob

from unveil_evalharness.cells import Cell, claim, is_finished, rows_of
from unveil_evalharness.console import say
from unveil_evalharness.errors import OutputError
from unveil_evalharness.evaluate import Session
from unveil_evalharness.executing.cluster import cell_jobs, run_local_jobs, scripts_folder
from unveil_evalharness.executing.job import CellJob
from unveil_evalharness.executing.ranks import Rank
from unveil_evalharness.executing.slurm import log_of, queued_by_name, submit_slurm_jobs
from unveil_evalharness.executing.workers import run_workers
from unveil_evalharness.grid import Grid, build_grid
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
    if options.executor == "slurm":
        _submit(options, grid, run_id, summary)
        return
    session = open_session(options, grid, run_id)
    waiting = _waiting(grid, session, options)
    if options.executor == "local":
        run_local_jobs(cell_jobs(options, waiting, run_id=run_id), options)
    elif waiting:
        run_workers(replace(options, devices=min(options.devices, len(waiting))), run_id=run_id)
    # The processes have shared the run of this id; here it is counted, and what a killed one left is done or told.
    run(options, load=load, summary=summary, run_id=run_id)


def _waiting(grid: Grid, session: Session, options: RunOptions) -> list[Cell]:
    rows = read_rows(session.results)
    return [
        cell
        for cell in grid.cells
        if options.overwrite or not is_finished(cell, rows, session.data_hash_or_empty(cell.task))
    ]


def _submit(options: RunOptions, grid: Grid, run_id: str, summary: RunSummary) -> None:
    """Hands to SLURM what it does not have yet, and tells what is finished."""
    # A login node need not have the device of the jobs.
    session = open_session(replace(options, device="auto"), grid, run_id)
    with claim(options.output_path / "work" / "submitting.lock", wait=True):
        # The queue first: a task whose job has left it by now has written all the rows that it ever will.
        queued = queued_by_name(options)
        waiting = _waiting(grid, session, options)
        jobs = [job for job in cell_jobs(options, waiting, run_id=None) if not _is_queued(options, job, queued)]
        if jobs:
            submit_slurm_jobs(jobs, options, submitted=lambda job, number: _note(options, job, number))
            say(f"{len(jobs)} jobs submitted; the same command tells how far they are")
    rows = read_rows(options.output_path / "results.jsonl")
    for cell in grid.cells:
        summary.rows += rows_of(cell, rows, None)
    summary.num_skipped += len(grid.cells) - len(waiting)


def _is_queued(options: RunOptions, job: CellJob, queued: Mapping[str, QueuedJob]) -> bool:
    if job.name in queued:
        say(f"{job.name}: SLURM has it as {queued[job.name]}")
        return True
    file = _note_file(options, job)
    if file.is_file():
        number = _noted(file)
        log = log_of(options, number)
        say(f"{job.name}: job {number} has left SLURM's queue, and there is something left to do (see {log})")
    return False


def _noted(file: Path) -> str:
    try:
        return str(parse_json(file.read_text(encoding="utf-8"))["job_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{file} does not say which job it is of ({error!r}); remove it") from error


def _note(options: RunOptions, job: CellJob, number: str) -> None:
    file = _note_file(options, job)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"job_id": number}), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror or error}; the jobs are submitted") from error
    say(f"{job.name}: submitted as job {number}; what it says: {job.log}")


def _note_file(options: RunOptions, job: CellJob) -> Path:
    return scripts_folder(options) / "jobs" / f"{job.name}.json"
