"""One cell from start to rows: whatever goes wrong inside a task becomes a row that says so."""

import math
import shutil
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from unveil_evalharness.cells import Cell
from unveil_evalharness.console import LogSink
from unveil_evalharness.environment import choose_device, hardware, package_versions
from unveil_evalharness.errors import DependencyError, HarnessError, OutputError, one_line
from unveil_evalharness.output import write_gallery, write_samples
from unveil_evalharness.results import ResultRow, Status
from unveil_evalharness.subjects import load_fresh
from unveil_evalharness.task import Metric, MetricSpec, Task, TaskContext, TaskResult

__all__ = ["Session", "evaluate", "start_session"]


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
    sink: LogSink = field(default_factory=LogSink)
    known_data_hashes: dict[str, str] = field(default_factory=dict)

    @property
    def results(self) -> Path:
        """The result file."""
        return self.output / "results.jsonl"

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


def start_session(*, data_root: Path, output: Path, device: str, batch_size: int | None, progress: bool) -> Session:
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
    )


def evaluate(cell: Cell, title: str, session: Session) -> list[ResultRow]:
    """Runs one cell and returns its rows: all metrics, or one row that says why there are none.

    Raises:
        OutputError: log, work folder or samples cannot be written.
    """
    reason = cell.task.not_applicable(cell.subject.manifest)
    if reason is not None:
        session.sink.line(f"{title}: not applicable: {reason}")
        return [replace(_row(cell, session, "not_applicable", _main(cell.task), ""), error=reason)]
    stem = cell.stem(session.data_hash_or_empty(cell.task))
    log = session.output / "logs" / f"{stem}.log"
    session.sink.line(f"{title}: started")
    begin = time.perf_counter()
    with session.sink.into(log):
        try:
            result = _run(cell, stem, session)
        except OutputError:
            raise
        except (Exception, SystemExit) as error:
            session.sink.write(traceback.format_exc())
            session.sink.line(f"{title}: failed: {_reason(error)} (details: {log})")
            row = _row(cell, session, "failed", _main(cell.task), session.data_hash_or_empty(cell.task))
            return [replace(row, error=_reason(error), seconds=round(time.perf_counter() - begin, 3))]
        seconds = time.perf_counter() - begin
        session.sink.line(f"{title}: done in {seconds:.0f} s")
    return _finished_rows(cell, stem, session, result, seconds)


def _run(cell: Cell, stem: str, session: Session) -> TaskResult:
    _check_dependencies(cell.task)
    session.data_hash(cell.task)
    checkpoint = load_fresh(cell.subject)
    work = session.output / "work" / stem
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {work}: {error.strerror}; choose another --output-path") from error
    context = TaskContext(
        checkpoint=checkpoint,
        data_root=session.data_root,
        protocol=cell.protocol,
        seed=cell.seed,
        limit=cell.limit,
        batch_size=session.batch_size,
        device=session.device,
        work_dir=work,
        log=session.sink.line,
        progress=session.progress,
    )
    try:
        result = cell.task.run(context)
    except KeyboardInterrupt:
        raise  # the work folder stays: the next run of this cell may go on from it
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    _check_result(cell.task, result)
    return result


def _check_dependencies(task: Task) -> None:
    missing = [name for name in task.requires if find_spec(name) is None]
    if missing:
        raise DependencyError(
            f"{task.name} needs {', '.join(missing)}; install with: pip install 'unveil-evalharness[all]'"
        )


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


def _main(task: Task) -> MetricSpec:
    return next(spec for spec in task.metrics if spec.main)


def _finished_rows(cell: Cell, stem: str, session: Session, result: TaskResult, seconds: float) -> list[ResultRow]:
    samples = ""
    if result.samples is not None:
        samples = f"samples/{stem}.parquet"
        write_samples(session.output / samples, result.samples)
    tables = {name: f"tables/{stem}-{name}.parquet" for name in result.tables}
    for name, table in result.tables.items():
        write_samples(session.output / tables[name], table)
    gallery = f"gallery/{stem}" if result.gallery else ""
    if gallery:
        write_gallery(session.output / gallery, result.gallery)
    measured: dict[str, Metric] = {metric.name: metric for metric in result.metrics}
    data_hash = session.data_hash(cell.task)
    return [
        replace(
            _row(cell, session, "ok", spec, data_hash),
            value=float(measured[spec.name].value),
            baseline=measured[spec.name].baseline,
            standard_error=measured[spec.name].standard_error,
            n=int(measured[spec.name].n),
            load_coverage=result.load_coverage,
            seconds=round(seconds, 3),
            samples=samples,
            tables=tables,
            gallery=gallery,
        )
        for spec in cell.task.metrics
    ]


def _row(cell: Cell, session: Session, status: Status, spec: MetricSpec, data_hash: str) -> ResultRow:
    """A row with everything but the measurement."""
    return ResultRow(
        checkpoint=str(cell.subject.path.resolve()),
        checkpoint_sha256=cell.subject.sha256,
        label=cell.subject.manifest.label,
        task=cell.task.name,
        task_version=cell.task.version,
        suite=cell.suite,
        protocol=cell.fingerprint,
        status=status,
        metric=spec.name,
        main=spec.main,
        unit=spec.unit,
        higher_is_better=spec.higher_is_better,
        seed=cell.seed,
        limited=cell.limit is not None,
        limit=cell.limit,
        data_hash=data_hash,
        versions=dict(session.versions),
        hardware=session.hardware,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
