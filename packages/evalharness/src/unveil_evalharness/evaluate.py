"""One cell from start to rows: whatever goes wrong inside a task becomes a row that says so."""

import contextlib
import errno
import gc
import math
import os
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from unveil_evalharness.cells import Cell
from unveil_evalharness.console import LogSink
from unveil_evalharness.environment import choose_device, hardware, package_versions
from unveil_evalharness.errors import DependencyError, DivergedError, HarnessError, OutputError, one_line
from unveil_evalharness.fingerprint import protocol_fields
from unveil_evalharness.fitting import run_in_memory
from unveil_evalharness.interrupts import signal_of
from unveil_evalharness.memory import PeakMemory, peak_memory
from unveil_evalharness.record import Cost, blank_row, finished_rows, main_metric, write_files
from unveil_evalharness.results import ResultRow
from unveil_evalharness.subjects import load_fresh
from unveil_evalharness.task import Task, TaskContext, TaskResult

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)

__all__ = ["Session", "discard_work", "evaluate", "killed_row", "start_session"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """What stays the same over all cells of one run."""

    data_root: Path
    output: Path
    device: str
    batch_size: int | None
    progress: bool
    hardware: str
    versions: Mapping[str, str]
    run_id: str
    sink: LogSink = field(default_factory=LogSink)
    known_data_hashes: dict[str, str] = field(default_factory=dict)

    @property
    def results(self) -> Path:
        """The result file."""
        return self.output / "results.jsonl"

    def work(self, stem: str) -> Path:
        """Folder of a cell under way."""
        return self.output / "work" / stem

    def log(self, stem: str) -> Path:
        """Log file of a cell."""
        return self.output / "logs" / f"{stem}.log"

    def data_hash(self, task: Task) -> str:
        """The task's data hash, computed once per run.

        Raises:
            DataError: the task's data is not there or damaged.
        """
        if task.name not in self.known_data_hashes:
            self.known_data_hashes[task.name] = task.data_hash(self.data_root)
        return self.known_data_hashes[task.name]

    def data_hash_or_empty(self, task: Task) -> str:
        """As `data_hash`, but empty where the data cannot be read.

        Nothing is hidden: `evaluate` asks `data_hash` again and records whatever it raises as the cell's failure.
        """
        try:
            return self.data_hash(task)
        except Exception:
            return ""


def start_session(
    *, data_root: Path, output: Path, device: str, batch_size: int | None, progress: bool, run_id: str
) -> Session:
    """Chooses the device and notes versions and hardware.

    Raises:
        UsageError: the device is not there.
    """
    chosen = choose_device(device)
    return Session(
        data_root=data_root,
        output=output,
        device=chosen,
        batch_size=batch_size,
        progress=progress,
        hardware=hardware(chosen),
        versions=package_versions(),
        run_id=run_id,
    )


def evaluate(cell: Cell, title: str, session: Session) -> list[ResultRow]:
    """Runs one cell and returns its rows: all metrics, or one row that says why there are none.

    The work folder of a finished cell stays until its rows are written (`discard_work`).

    Raises:
        OutputError: log, work folder or samples cannot be written.
    """
    spec = main_metric(cell.task.metrics)
    reason = cell.task.not_applicable(cell.subject.manifest)
    if reason is not None:
        session.sink.line(f"{title}: not applicable: {reason}")
        return [replace(blank_row(cell, session, "not_applicable", spec, ""), error=reason)]
    stem = cell.stem(session.data_hash_or_empty(cell.task))
    log = session.log(stem)
    session.sink.line(f"{title}: started")
    begin = time.perf_counter()
    peak = PeakMemory()
    with _noting_interrupts(title, stem, session), session.sink.into(log):
        try:
            with peak_memory(session.device) as peak:
                result, batch_size = _run(cell, stem, session)
        except OutputError:
            raise
        except (Exception, SystemExit) as error:
            _refuse_a_disk_that_takes_no_more(error, session)
            session.sink.write(traceback.format_exc())
            session.sink.line(f"{title}: failed: {_reason(error)} (details: {log})")
            _keep_what_a_retry_can_use(session, stem, error)
            row = blank_row(cell, session, "failed", spec, session.data_hash_or_empty(cell.task))
            seconds = round(time.perf_counter() - begin, 3)
            row = replace(row, error=_reason(error), seconds=seconds, peak_memory=peak.bytes)
            _let_go(error)
            return [row]
        seconds = time.perf_counter() - begin
        session.sink.line(f"{title}: done in {seconds:.0f} s")
    written = write_files(session.output, stem, result)
    cost = Cost(seconds=round(seconds, 3), peak_memory=peak.bytes, batch_size=batch_size)
    return finished_rows(cell, session, result, cost, written)


@contextlib.contextmanager
def _noting_interrupts(title: str, stem: str, session: Session) -> Iterator[None]:
    """Around the log and not within it: a signal may come as soon as there is a log."""
    try:
        yield
    except KeyboardInterrupt as error:
        with session.sink.into(session.log(stem)):
            session.sink.line(f"{title}: interrupted by {signal_of(error).name}; {_kept(session, stem)}")
        raise


def killed_row(cell: Cell, title: str, session: Session) -> ResultRow:
    """The row of a cell in which another process of this run was killed; trying again here could kill this one too."""
    reason = "the process that evaluated it was killed; the system may have been out of memory (--batch-size)"
    session.sink.line(f"{title}: failed: {reason}")
    data_hash = session.data_hash_or_empty(cell.task)
    return replace(blank_row(cell, session, "failed", main_metric(cell.task.metrics), data_hash), error=reason)


def discard_work(session: Session, stem: str) -> None:
    """Removes a cell's work folder; what its training logged goes to the end of the cell's log."""
    work = session.work(stem)
    training_log = work / "train.log"
    if training_log.is_file():
        with session.log(stem).open("a", encoding="utf-8") as log:
            log.write(training_log.read_text(encoding="utf-8", errors="replace"))
    shutil.rmtree(work, ignore_errors=True)


def _keep_what_a_retry_can_use(session: Session, stem: str, error: BaseException) -> None:
    """Leaves the work folder where the same cell can go on from an interim checkpoint in it.

    A loss that was not finite would be so again.
    """
    from unveil_evalharness.engine.interim import has_interim

    if isinstance(error, DivergedError) or not has_interim(session.work(stem)):
        discard_work(session, stem)
    else:
        session.sink.line("its interim checkpoint is kept; the same command goes on from there")


def _let_go(error: BaseException) -> None:
    """Free what the frames of an error hold: memory, and loaders.

    Processes of a loader that died are reported by PyTorch again, in whatever runs when the next child of this process
    ends, as long as the loader is there.
    """
    found: BaseException | None = error
    while found is not None:
        traceback.clear_frames(found.__traceback__)
        found = found.__cause__ or found.__context__
    gc.collect()


def _kept(session: Session, stem: str) -> str:
    from unveil_evalharness.engine.interim import has_interim

    if has_interim(session.work(stem)):
        return "the same command goes on from its interim checkpoint"
    return "the same command starts it again"


def _refuse_a_disk_that_takes_no_more(error: BaseException, session: Session) -> None:
    """A full or read-only disk is no failure of a task: no row could be written about it either.

    Raises:
        OutputError: the error, or what it came from, is the file system's refusal.
    """
    cause: BaseException | None = error
    while cause is not None:
        # safetensors and torch have no number of the error, they say it in words.
        if any(os.strerror(number) in str(cause) for number in _REFUSALS):
            break
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        raise OutputError(
            f"cannot write below {session.output}: {one_line(error)}; earlier results are intact; free space or choose "
            "another --output-path, then run the same command again"
        ) from error


def _run(cell: Cell, stem: str, session: Session) -> tuple[TaskResult, int]:
    """The result, and images per pass."""
    _check_dependencies(cell.task)
    session.data_hash(cell.task)
    work = session.work(stem)

    def attempt(batch_size: int | None) -> TaskResult:
        try:
            work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {work}: {error.strerror}; choose another --output-path") from error
        context = TaskContext(
            checkpoint=load_fresh(cell.subject),
            data_root=session.data_root,
            protocol=cell.protocol,
            seed=cell.seed,
            limit=cell.limit,
            batch_size=batch_size,
            device=session.device,
            work_dir=work,
            log=session.sink.line,
            progress=session.progress,
        )
        return cell.task.run(context)

    result, batch_size = run_in_memory(
        attempt,
        total=_total_batch(cell),
        asked=session.batch_size,
        work=work,
        log=session.sink.line,
    )
    _check_result(cell.task, result)
    return result, batch_size


def _total_batch(cell: Cell) -> int | None:
    """Images per optimiser step of the protocol, where it trains."""
    size = protocol_fields(cell.protocol).get("batch_size")
    return size if isinstance(size, int) and size > 0 else None


def _check_dependencies(task: Task) -> None:
    missing = [name for name in task.requires if find_spec(name) is None]
    if missing:
        package = "unveil-pretrain" if "unveil_pretrain" in missing else "unveil-evalharness[all]"
        raise DependencyError(f"{task.name} needs {', '.join(missing)}; install with: pip install '{package}'")


def _check_result(task: Task, result: TaskResult) -> None:
    """A task must report exactly the metrics it declares, as finite numbers."""
    declared, given = [spec.name for spec in task.metrics], [metric.name for metric in result.metrics]
    if sorted(declared) != sorted(given):
        raise HarnessError(f"{task.name} declares the metrics {declared} but returned {given}")
    for metric in result.metrics:
        for number in (metric.value, metric.baseline, metric.standard_error):
            if number is not None and not math.isfinite(number):
                raise HarnessError(f"{metric.name} is {metric.value} (baseline {metric.baseline}): not a finite number")


def _reason(error: BaseException) -> str:
    """One line: the harness's own errors speak for themselves, others are introduced by their type."""
    text = one_line(error)
    if isinstance(error, HarnessError) or text == type(error).__name__:
        return text
    return f"{type(error).__name__}: {text}"
