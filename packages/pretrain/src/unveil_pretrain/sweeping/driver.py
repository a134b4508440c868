"""Running the cells that are not done: a few at once as local processes, or all of them handed to SLURM."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from unveil_pretrain.errors import SweepError
from unveil_pretrain.planning.plans import Cell
from unveil_pretrain.sweeping.executors import Handle, Resources, cell_job, is_active, start_local, submit_slurm
from unveil_pretrain.sweeping.folder import CellState, SweepFolder
from unveil_pretrain.sweeping.job import CellJob, is_locked, read_outcome

__all__ = ["run_local", "run_slurm"]

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
    folder: SweepFolder, resources: Resources, *, at_once: int, log: Callable[[str], None], again: bool = False
) -> list[CellState]:
    """Submit every cell that is neither done nor in SLURM's hands, and return without waiting.

    Args:
        folder: The sweep's folder, claimed, on a disk that all nodes share.
        resources: What each cell gets.
        at_once: Cells at the same time.
        log: Receives a line for each event.
        again: Whether to submit cells of whose job SLURM knows nothing.

    Raises:
        SweepError: another process works on this folder, or SLURM or submitit is missing.
        OutputError: the folder cannot be written.
    """
    data = folder.data()
    jobs: list[tuple[Cell, CellJob]] = []
    with _alone(folder):
        for state in folder.states():
            if state.state in ("done", "running"):
                continue
            if state.state == "submitted" and state.job is not None:
                active = is_active(folder.path.resolve(), state.job)
                if active or (active is None and not again):
                    known = "has it" if active else "does not know it (any more); --again submits it anyway"
                    log(f"{state.cell.name}: submitted as job {state.job}, and SLURM {known}")
                    continue
            folder.forget_outcome(state.cell)
            jobs.append((state.cell, cell_job(folder, state.cell, data, resources, threads=resources.threads)))
        handles = submit_slurm([job for _, job in jobs], resources, at_once=at_once) if jobs else []
        for (cell, _), handle in zip(jobs, handles, strict=True):
            folder.note("submitted", cell, job=handle.job_id)
            log(f"{cell.name}: submitted as job {handle.job_id}")
    return folder.states()


def _sort(folder: SweepFolder, at_once: int, log: Callable[[str], None]) -> tuple[list[Cell], list[_Running]]:
    """The cells to start, and those that still run from before."""
    waiting: list[Cell] = []
    running: list[_Running] = []
    for state in folder.states():
        if state.state == "submitted":
            raise SweepError(
                f"cell {state.cell.name} was submitted to SLURM as job {state.job}; use --executor slurm in this folder"
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
    outcome = read_outcome(folder.path, entry.cell.name)
    if folder.state(entry.cell).state == "done":
        folder.note("finished", entry.cell)
        log(f"{entry.cell.name}: done")
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
