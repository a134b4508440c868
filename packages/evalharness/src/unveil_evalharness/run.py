"""``evalharness run``: every task on every checkpoint with every seed, once; each finished cell is kept for good."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from unveil_evalharness.cells import Cell, claim, is_finished, rows_of
from unveil_evalharness.errors import DataError, UsageError
from unveil_evalharness.evaluate import Session, evaluate, start_session
from unveil_evalharness.fingerprint import fingerprint
from unveil_evalharness.output import prepare_output
from unveil_evalharness.results import ResultRow, append_rows, read_rows
from unveil_evalharness.subjects import Subject, find_subjects, load_fresh
from unveil_evalharness.task import Suite, Task
from unveil_evalharness.tasks import TASK_NAMES, load_task

__all__ = ["RunOptions", "RunSummary", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """Evaluate checkpoints on downstream tasks.

    Finished tasks are kept in OUT/results.jsonl and skipped when the same command runs again; failed ones are retried.
    """

    ckpt: tuple[Path, ...]
    """Checkpoint folders, or run folders (their last checkpoint), separated by commas."""
    data_root: Path
    """Folder with imagenet/, coco/, ade20k/ and captions/."""
    output_path: Path
    """Folder for results.jsonl, manifests, per-sample outcomes and logs."""
    tasks: tuple[str, ...] = TASK_NAMES
    """Task names separated by commas; see `evalharness ls tasks`."""
    suite: Suite = "quick"
    """Protocol: quick takes minutes on a CPU, short about an hour on one GPU, full is the papers'."""
    seeds: tuple[int, ...] = (0,)
    """Seeds separated by commas; each is one evaluation of its own."""
    limit: int | None = None
    """Use only the first N evaluation images; such results are marked and fit for a look only."""
    batch_size: int | Literal["auto"] = "auto"
    """Images per step on the device; the effective batch of the protocol stays as it is."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU when torch sees one."""
    progress: bool = True
    """Draw progress bars on stderr."""
    json: bool = False
    """Print the rows as JSON on stdout instead of the table."""

    def __post_init__(self) -> None:
        """Refuses values no run can have."""
        for name in ("ckpt", "tasks", "seeds"):
            if not getattr(self, name):
                raise UsageError(f"--{name} is empty; name at least one, separated by commas")
        for name in ("limit", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if min(self.seeds) < 0:
            raise UsageError(f"--seeds must not be negative, got {min(self.seeds)}")


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


def run(
    options: RunOptions, *, load: Callable[[str], Task] = load_task, summary: RunSummary | None = None
) -> RunSummary:
    """Evaluates every (checkpoint, task, seed) that is not finished yet.

    Args:
        options: what to do.
        load: gives the task of a name; pass another to evaluate tasks of your own.
        summary: filled while the run proceeds, so that the caller of an interrupted run knows what was done.

    Returns:
        The rows of all cells that were asked for and the counts.

    Raises:
        HarnessError: bad input, found before any work begins, or an output folder that cannot be written. A failing
            task does not raise: it is recorded with its reason.
    """
    summary = RunSummary() if summary is None else summary
    if not options.data_root.is_dir():
        raise DataError(f"--data-root {options.data_root} is not a folder; see `evalharness doctor --data-root DIR`")
    tasks = [load(name) for name in dict.fromkeys(options.tasks)]
    subjects = find_subjects(options.ckpt)
    cells = list(_cells(options, subjects, tasks))
    prepare_output(options.output_path, subjects, tasks, options.suite)
    session = start_session(
        data_root=options.data_root,
        output=options.output_path,
        device=options.device,
        batch_size=None if options.batch_size == "auto" else options.batch_size,
        progress=options.progress,
    )
    for subject in _unfinished_subjects(cells, session):
        load_fresh(subject)  # verified here, before hours of work on its neighbours; each task loads its own copy
    deferred = []
    for number, cell in enumerate(cells, start=1):
        title = f"[{number}/{len(cells)}] {cell.title}"
        if not _visit(cell, title, session, summary, wait=False):
            deferred.append((title, cell))
    for title, cell in deferred:
        _visit(cell, title, session, summary, wait=True)
    return summary


def _cells(options: RunOptions, subjects: list[Subject], tasks: list[Task]) -> Iterator[Cell]:
    for subject in subjects:
        for task in tasks:
            protocol = task.protocol(options.suite)
            for seed in dict.fromkeys(options.seeds):
                yield Cell(
                    subject=subject,
                    task=task,
                    suite=options.suite,
                    protocol=protocol,
                    fingerprint=fingerprint(task.name, task.version, protocol),
                    seed=seed,
                    limit=options.limit,
                )


def _unfinished_subjects(cells: list[Cell], session: Session) -> list[Subject]:
    rows = read_rows(session.results)
    unfinished = {}
    for cell in cells:
        if cell.task.not_applicable(cell.subject.manifest) is not None:
            continue
        if not is_finished(cell, rows, session.data_hash_or_empty(cell.task)):
            unfinished[cell.subject.sha256] = cell.subject
    return list(unfinished.values())


def _visit(cell: Cell, title: str, session: Session, summary: RunSummary, *, wait: bool) -> bool:
    """Evaluates a cell unless it is finished; False when another process is at it and `wait` is false."""
    data_hash = session.data_hash_or_empty(cell.task)
    with claim(session.output / "work" / f"{cell.stem(data_hash)}.lock", wait=wait) as mine:
        if not mine:
            session.sink.line(f"{title}: another process is at it; coming back later")
            return False
        if is_finished(cell, read_rows(session.results), data_hash):
            session.sink.line(f"{title}: finished earlier")
            summary.num_skipped += 1
        else:
            rows = evaluate(cell, title, session)
            append_rows(session.results, rows)
            summary.num_run += 1
            summary.num_failed += rows[0].status == "failed"
    summary.rows += rows_of(cell, read_rows(session.results), data_hash)
    return True
