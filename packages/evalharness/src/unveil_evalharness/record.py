"""What a finished cell leaves: its files with their hashes, and its rows."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from unveil_evalharness.cells import Cell
from unveil_evalharness.output import write_gallery, write_hashes, write_samples
from unveil_evalharness.results import ResultRow, Status
from unveil_evalharness.task import Metric, MetricSpec, TaskResult

if TYPE_CHECKING:
    from unveil_evalharness.evaluate import Session

__all__ = ["Cost", "WrittenFiles", "blank_row", "finished_rows", "main_metric", "write_files"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a cell took."""

    seconds: float
    peak_memory: int
    """Bytes."""
    batch_size: int
    """Images per pass; 0 where the task chose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenFiles:
    """Paths relative to the output folder; empty where there is nothing."""

    samples: str = ""
    tables: dict[str, str] = field(default_factory=dict)
    gallery: str = ""
    files: str = ""
    """The file with the hashes of all others."""


def main_metric(specs: Sequence[MetricSpec]) -> MetricSpec:
    """The one that stands for its task."""
    return next(spec for spec in specs if spec.main)


def write_files(output: Path, stem: str, result: TaskResult) -> WrittenFiles:
    """Writes samples, tables and pictures, then their SHA-256.

    Raises:
        OutputError: a file cannot be written.
    """
    samples = f"samples/{stem}.parquet" if result.samples is not None else ""
    if result.samples is not None:
        write_samples(output / samples, result.samples)
    tables = {name: f"tables/{stem}-{name}.parquet" for name in result.tables}
    for name, table in result.tables.items():
        write_samples(output / tables[name], table)
    gallery = f"gallery/{stem}" if result.gallery else ""
    pictures = []
    if gallery:
        pictures = [f"{gallery}/{name}" for name in write_gallery(output / gallery, result.gallery)]
    names = [name for name in (samples, *tables.values(), *pictures) if name]
    hashes = {name: hashlib.sha256((output / name).read_bytes()).hexdigest() for name in sorted(names)}
    files = write_hashes(output, json.dumps(hashes, indent=1) + "\n") if hashes else ""
    return WrittenFiles(samples=samples, tables=tables, gallery=gallery, files=files)


def finished_rows(
    cell: Cell, session: "Session", result: TaskResult, cost: Cost, written: WrittenFiles
) -> list[ResultRow]:
    """One row per declared metric."""
    measured: dict[str, Metric] = {metric.name: metric for metric in result.metrics}
    data_hash = session.data_hash(cell.task)
    return [
        replace(
            blank_row(cell, session, "ok", spec, data_hash),
            value=float(measured[spec.name].value),
            baseline=measured[spec.name].baseline,
            standard_error=measured[spec.name].standard_error,
            n=int(measured[spec.name].n),
            load_coverage=result.load_coverage,
            seconds=cost.seconds,
            peak_memory=cost.peak_memory,
            batch_size=cost.batch_size,
            samples=written.samples,
            tables=written.tables,
            gallery=written.gallery,
            files=written.files,
        )
        for spec in cell.task.metrics
    ]


def blank_row(cell: Cell, session: "Session", status: Status, spec: MetricSpec, data_hash: str) -> ResultRow:
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
        repeat=cell.repeat,
        limited=cell.limit is not None,
        limit=cell.limit,
        data_hash=data_hash,
        versions=dict(session.versions),
        hardware=session.hardware,
        run_id=session.run_id,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
