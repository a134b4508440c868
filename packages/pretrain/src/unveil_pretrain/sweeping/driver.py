"""Running the cells that are not done: a few at once as local processes, or all of them handed to SLURM."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from unveil_backbones.errors import SlurmError
from unveil_backbones.slurm.queue import has_slurm, queued_jobs

from unveil_pretrain.errors import SweepError
from unveil_pretrain.planning.plans import Cell
from unveil_pretrain.sweeping.executors import Handle, Resources, cell_job, start_local
from unveil_pretrain.sweeping.folder import CellState, SweepFolder
from unveil_pretrain.sweeping.job import CellJob, is_locked
from unveil_pretrain.sweeping.records import outcome_of
from unveil_pretrain.sweeping.slurm import logs_of, queued_cells, scripts_folder, submit

__all__ = ["looked_up", "run_local", "run_slurm"]

_LOOK_EVERY = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class _Running:
    """A cell at work: of this sweep, or still of one that was killed."""

    cell: Cell
    handle: Handle | None
    """None where another process started it."""
    slot: int


def run_local(
    folder: SweepFolder, resources: Resources, *, at_once: int, log: Callable[[str], None]
) -> list[CellState]:
    """Run every cell that is not done, `at_once` at the same time, and wait for all.

    A cell that fails does not stop the others. Cells that a killed sweep left running are waited for.

    Args:
        folder: The sweep's folder, claimed.
        resources: What each cell gets.
        at_once: Cells at the same time.
        log: Receives a line for each event.

    Returns:
        The final states.

    Raises:
        SweepError: another process works on this folder, or submitit is missing.
        OutputError: the folder cannot be written.
    """
    data = folder.data()
    threads = resources.threads or max(1, (os.cpu_count() or 1) // at_once)
    with _alone(folder):
        waiting, running = _sort(folder, at_once, log)
        while waiting or running:
            running = [entry for entry in running if not _ended(folder, entry, log)]
            while waiting and len(running) < at_once:
                cell = waiting.pop(0)
                slot = min(set(range(at_once)) - {entry.slot for entry in running})
                job = cell_job(folder, cell, data, resources, threads=threads)
                folder.forget_outcome(cell)
                handle = start_local(job, resources, slot=slot)
                folder.note("started", cell, job=handle.job_id)
                log(f"{cell.name}: started")
                running.append(_Running(cell, handle, slot))
            if running:
                time.sleep(_LOOK_EVERY)
    return folder.states()


def run_slurm(
    folder: SweepFolder, resources: Resources, *, at_once: int, log: Callable[[str], None]
) -> list[CellState]:
    """Submit every cell that is neither done nor in SLURM's hands, and return without waiting.

    Args:
        folder: The sweep's folder, claimed, on a disk that all nodes share.
        resources: What each cell gets.
        at_once: Cells at the same time.
        log: Receives a line for each event.

    Raises:
        SweepError: another process works on this folder, or submitit is missing.
        SlurmError: SLURM is missing, does not answer, or refuses the jobs.
        OutputError: the folder cannot be written.
    """
    data = folder.data()
    jobs: dict[str, CellJob] = {}
    cells: dict[str, Cell] = {}

    def submitted(job: CellJob, number: str) -> None:
        folder.note("submitted", cells[job.name], job=number)
        log(f"{job.name}: submitted as job {number}; what it says: {folder.path / 'logs' / job.name}.log")

    with _alone(folder):
        # The queue first: a cell whose job has left it by now has written down what it ever will.
        queued = queued_cells(folder.path, log)
        for state in folder.states():
            name = state.cell.name
            if state.state in ("done", "running"):
                continue
            if name in queued:
                log(f"{name}: SLURM has it as {queued[name]}")
                if state.job != queued[name].number:
                    folder.note("submitted", state.cell, job=queued[name].number)
                continue
            if state.state == "submitted" and state.job is not None:
                log(f"{name}: {_left(folder, state.job)}; it is submitted again")
            folder.forget_outcome(state.cell)
            cells[name] = state.cell
            jobs[name] = cell_job(folder, state.cell, data, resources, threads=resources.threads)
        if jobs:
            submit(list(jobs.values()), resources, at_once=at_once, submitted=submitted)
    return folder.states()


def looked_up(folder: SweepFolder, states: list[CellState], log: Callable[[str], None]) -> list[CellState]:
    """The states, after a look into SLURM's queue where there is one: who is not in it is not submitted any more.

    Args:
        folder: The sweep's folder.
        states: As its files say.
        log: Receives a line if SLURM does not answer; then the states stay.
    """
    if not has_slurm() or all(state.state != "submitted" for state in states):
        return states
    try:
        queued = queued_jobs(scripts_folder(folder.path))
    except SlurmError as error:
        log(str(error))
        return states
    return [
        replace(state, state="interrupted" if state.step else "waiting", reason=_left(folder, state.job))
        if state.state == "submitted" and state.job is not None and state.job not in queued
        else state
        for state in folder.states()
    ]


def _left(folder: SweepFolder, number: str) -> str:
    return f"job {number} has left SLURM's queue before the cell was done (see {logs_of(folder.path, number)})"


def _sort(folder: SweepFolder, at_once: int, log: Callable[[str], None]) -> tuple[list[Cell], list[_Running]]:
    """The cells to start, and those that still run from before."""
    waiting: list[Cell] = []
    running: list[_Running] = []
    for state in looked_up(folder, folder.states(), log):
        if state.state == "submitted":
            raise SweepError(
                f"cell {state.cell.name} was submitted to SLURM as job {state.job}; use --executor slurm in this "
                "folder, or scancel it first"
            )
        if state.state == "running":
            log(f"{state.cell.name}: still running from an earlier sweep, waiting for it")
            running.append(_Running(state.cell, None, len(running) % at_once))
        elif state.state != "done":
            waiting.append(state.cell)
    return waiting, running


def _ended(folder: SweepFolder, entry: _Running, log: Callable[[str], None]) -> bool:
    """Whether the cell has ended; notes how."""
    ended = not is_locked(folder.path, entry.cell.name) if entry.handle is None else entry.handle.done()
    if not ended:
        return False
    outcome = outcome_of(folder.path, entry.cell.name)
    if folder.state(entry.cell).state == "done":
        folder.note("finished", entry.cell)
        log(f"{entry.cell.name}: done")
        return True
    if outcome is not None and outcome.get("stopped"):
        folder.note("interrupted", entry.cell)
        log(f"{entry.cell.name}: stopped by a signal; the same command goes on with it")
        return True
    reason = outcome["reason"] if outcome is not None else None
    reason = reason or "it ended without a word; its process may have been killed"
    folder.note("failed", entry.cell, reason=reason)
    log(f"{entry.cell.name}: failed: {reason}")
    return True


@contextmanager
def _alone(folder: SweepFolder) -> Iterator[None]:
    """One sweep at a time in a folder; the lock goes with the process, however it ends."""
    with (folder.path / "locks" / ".sweep").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SweepError(
                f"another `pretrain sweep` works on {folder.path}; wait for it, or look at it with --status"
            ) from error
        yield
