"""``evalharness run``: every task on every checkpoint with every seed, once; each finished cell is kept for good."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from unveil_evalharness.cells import Cell, attempts, claim, is_finished, rows_of
from unveil_evalharness.console import say
from unveil_evalharness.environment import code_version
from unveil_evalharness.evaluate import Session, discard_work, evaluate, killed_row, start_session
from unveil_evalharness.grid import Grid, build_grid
from unveil_evalharness.interrupts import signal_of
from unveil_evalharness.options import RunOptions, as_record, command_line, named_protocols
from unveil_evalharness.output import note_interruption, prepare_output, write_run_record
from unveil_evalharness.remaining import remaining_words
from unveil_evalharness.results import ResultRow, append_rows, read_rows
from unveil_evalharness.subjects import Subject, load_fresh
from unveil_evalharness.task import Task
from unveil_evalharness.tasks import load_task

__all__ = ["RunOptions", "RunSummary", "new_run_id", "open_session", "run"]


@dataclass(kw_only=True, slots=True)
class RunSummary:
    """What a run did, updated as it goes so that an interrupted run can still be told."""

    rows: list[ResultRow] = field(default_factory=list)
    """Current rows of the cells that were asked for, finished now or earlier."""
    num_run: int = 0
    num_skipped: int = 0
    num_failed: int = 0

    @property
    def exit_code(self) -> int:
        """1 when a task failed, else 0."""
        return 1 if self.num_failed else 0


def new_run_id() -> str:
    """A name for one call of the harness, shared by the processes that it starts."""
    return uuid.uuid4().hex[:12]


def run(
    options: RunOptions,
    *,
    load: Callable[[str], Task] = load_task,
    summary: RunSummary | None = None,
    run_id: str | None = None,
) -> RunSummary:
    """Evaluates every (checkpoint, task, seed, repeat) that is not finished yet, in this process.

    Processes that are given the same `run_id` share one run: each cell is evaluated, and a failing one tried, once.

    Args:
        options: what to do.
        load: gives the task of a name; pass another to evaluate tasks of your own.
        summary: filled while the run proceeds, so that the caller of an interrupted run knows what was done.
        run_id: name of the run; None makes one.

    Returns:
        The rows of all cells that were asked for and the counts.

    Raises:
        HarnessError: bad input, found before any work begins, or an output folder that cannot be written. A failing
            task does not raise: it is recorded with its reason.
    """
    summary = RunSummary() if summary is None else summary
    grid = build_grid(options, load)
    session = open_session(options, grid, run_id or new_run_id())
    for subject in _unfinished_subjects(grid.cells, session, overwrite=options.overwrite):
        load_fresh(subject)  # verified here, before hours of work on its neighbours; each task loads its own copy
    try:
        _visit_all(grid.cells, session, summary, overwrite=options.overwrite)
    except KeyboardInterrupt as error:
        note_interruption(options.output_path, session.run_id, signal_of(error).name)
        raise
    return summary


def _visit_all(cells: Sequence[Cell], session: Session, summary: RunSummary, *, overwrite: bool) -> None:
    """Every cell in turn; those that another process holds at the end."""
    deferred, rows_of_cells = [], dict[int, list[ResultRow]]()
    for wait, numbers in ((False, range(len(cells))), (True, deferred)):
        for number in numbers:
            cell, num_run = cells[number], summary.num_run
            title = f"[{number + 1}/{len(cells)}] {cell.title}"
            rows = _visit(cell, title, session, summary, wait=wait, overwrite=overwrite)
            if rows is None:
                deferred.append(number)
                continue
            rows_of_cells[number] = rows
            summary.rows = [row for key in sorted(rows_of_cells) for row in rows_of_cells[key]]
            if summary.num_run > num_run:
                _say_what_is_left(cells[number + 1 :], session)


def open_session(options: RunOptions, grid: Grid, run_id: str) -> Session:
    """Prepares the output folder and notes how the run was called.

    Raises:
        OutputError: the folder cannot be written.
        UsageError: the device is not there.
    """
    prepare_output(options.output_path, grid.subjects, grid.tasks, options.suite, named_protocols(options))
    session = start_session(
        data_root=options.data_root,
        output=options.output_path,
        device=options.device,
        batch_size=None if options.batch_size == "auto" else options.batch_size,
        progress=options.progress,
        run_id=run_id,
    )
    record = {
        "run_id": run_id,
        "command": ["evalharness", "run", *command_line(options)],
        "options": as_record(options),
        "versions": dict(session.versions),
        "code": code_version(),
        "hardware": session.hardware,
    }
    write_run_record(options.output_path, run_id, record)
    return session


def _unfinished_subjects(cells: list[Cell], session: Session, *, overwrite: bool) -> list[Subject]:
    rows = read_rows(session.results)
    unfinished = {}
    for cell in cells:
        if cell.task.not_applicable(cell.subject.manifest) is not None:
            continue
        if overwrite or not is_finished(cell, rows, session.data_hash_or_empty(cell.task)):
            unfinished[cell.subject.sha256] = cell.subject
    return list(unfinished.values())


def _say_what_is_left(cells: Sequence[Cell], session: Session) -> None:
    words = remaining_words(cells, read_rows(session.results), session)
    if words:
        say(words)


def _visit(
    cell: Cell, title: str, session: Session, summary: RunSummary, *, wait: bool, overwrite: bool
) -> list[ResultRow] | None:
    """Evaluates a cell unless it is finished; its rows, or None when another process is at it and `wait` is false."""
    data_hash = session.data_hash_or_empty(cell.task)
    stem = cell.stem(data_hash)
    with claim(session.output / "work" / f"{stem}.lock", wait=wait, holder=session.run_id) as mine:
        if mine is None:
            session.sink.line(f"{title}: another process is at it; coming back later")
            return None
        rows = read_rows(session.results)
        tried = attempts(cell, rows, session.run_id)
        if tried:  # by another process of this run
            summary.num_run += 1
            summary.num_failed += tried[-1].status == "failed"
        elif is_finished(cell, rows, data_hash) and not overwrite:
            session.sink.line(f"{title}: finished earlier")
            summary.num_skipped += 1
            discard_work(session, stem)  # a process killed behind its last row left it
        else:
            own = [killed_row(cell, title, session)] if mine.holder_died else evaluate(cell, title, session)
            append_rows(session.results, own)
            summary.num_run += 1
            summary.num_failed += own[0].status == "failed"
            if own[0].status != "failed":
                discard_work(session, stem)
    return rows_of(cell, read_rows(session.results), data_hash)
