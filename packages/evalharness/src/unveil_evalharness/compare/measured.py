"""What one side measured of one metric: a value per run, and where the outcomes of the single items are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unveil_evalharness.errors import NotComparableError
from unveil_evalharness.results import ResultRow

__all__ = ["Measured", "check_comparable", "gather"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One metric under one protocol on one data set, measured by one or more runs (seeds, or pre-trained anew)."""

    metric: str
    """Full name, ``<task>.<metric>``."""
    task: str
    task_version: int
    suite: str
    protocol: str
    """Fingerprint."""
    data_hash: str
    limit: int | None
    higher_is_better: bool
    unit: str
    main: bool
    n: int
    """Evaluation items of a run."""
    values: tuple[float, ...]
    """One per run."""
    standard_errors: tuple[float | None, ...]
    seeds: tuple[int, ...]
    checkpoints: tuple[str, ...]
    """SHA-256 of each run's checkpoint."""
    samples: tuple[Path | None, ...]
    """Parquet files of per-item outcomes."""
    versions: tuple[tuple[str, str], ...] = ()
    hardware: str = ""

    @property
    def mean(self) -> float:
        """Mean over the runs."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float | None:
        """Standard deviation over the runs; None for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def condition(self) -> tuple[int, str, str, int | None]:
        """What must be equal for two values of the metric to be put side by side."""
        return (self.task_version, self.protocol, self.data_hash, self.limit)


def gather(rows: Sequence[ResultRow], folder: Path) -> list[Measured]:
    """Finished rows by metric and condition, in order of first appearance; a row is one run.

    Args:
        rows: current rows of the checkpoints that make up one side.
        folder: where ``samples`` of the rows are relative to.
    """
    groups: dict[tuple[object, ...], list[ResultRow]] = {}
    for row in rows:
        if row.status == "ok" and row.value is not None:
            key = (row.metric, row.task_version, row.protocol, row.data_hash, row.limit)
            groups.setdefault(key, []).append(row)
    return [_measured(group, folder) for group in groups.values()]


def _measured(rows: Sequence[ResultRow], folder: Path) -> Measured:
    first = rows[0]
    return Measured(
        metric=first.metric,
        task=first.task,
        task_version=first.task_version,
        suite=first.suite,
        protocol=first.protocol,
        data_hash=first.data_hash,
        limit=first.limit,
        higher_is_better=first.higher_is_better,
        unit=first.unit,
        main=first.main,
        n=first.n,
        values=tuple(row.value for row in rows if row.value is not None),
        standard_errors=tuple(row.standard_error for row in rows),
        seeds=tuple(row.seed for row in rows),
        checkpoints=tuple(row.checkpoint_sha256 for row in rows),
        samples=tuple(folder / row.samples if row.samples else None for row in rows),
        versions=tuple(sorted(first.versions.items())),
        hardware=first.hardware,
    )


def check_comparable(a: Measured, b: Measured) -> None:
    """Refuses two measurements that were made differently.

    Raises:
        NotComparableError: names the first field that differs, with both values.
    """
    fields = (
        ("task version", a.task_version, b.task_version),
        ("protocol fingerprint", f"{a.protocol} ({a.suite})", f"{b.protocol} ({b.suite})"),
        ("data hash", a.data_hash, b.data_hash),
        ("limit", _limit(a.limit), _limit(b.limit)),
        ("unit", a.unit, b.unit),
        ("number of items", a.n, b.n),
        ("direction", a.higher_is_better, b.higher_is_better),
    )
    for name, left, right in fields:
        if left != right:
            raise NotComparableError(
                f"{a.metric} is not comparable: {name} differs, {left} against {right}; evaluate both in the same way"
            )


def _limit(limit: int | None) -> str:
    return "none" if limit is None else str(limit)
