"""Joins result rows with manifests: one point per checkpoint and metric, grouped by what may share a pair of axes.

The horizontal axis is a validation loss, so all its points have one passport; the vertical axis is a metric, so all its
points have one protocol fingerprint, one data hash and one ``--limit``. Such a set of points is a stratum.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unveil_backbones.manifest import Manifest

from unveil_evalharness.correlate.evidence import Evidence
from unveil_evalharness.results import ResultRow

__all__ = ["Column", "LeftOut", "Point", "Points", "column_of", "combine_seeds", "join", "run_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """What two metric values must share before they may stand in one column."""

    task: str
    metric: str
    main: bool
    unit: str
    higher_is_better: bool
    protocol: str
    data_hash: str
    limit: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One checkpoint: its final validation loss and one metric, averaged over seeds."""

    checkpoint_sha256: str
    label: str
    run: str
    """The training run; several checkpoints of one run are not independent."""
    step: int
    unique_samples: int
    loss: float
    loss_standard_error: float | None
    value: float
    value_standard_error: float | None
    num_seeds: int
    baseline: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A measured checkpoint that cannot be placed on the loss axis, and why."""

    label: str
    metric: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """All strata (column and passport hash to points) in order of first appearance, and what was left out."""

    strata: dict[tuple[Column, str], tuple[Point, ...]]
    left_out: tuple[LeftOut, ...]


def column_of(row: ResultRow) -> Column:
    """The column a row belongs to."""
    return Column(
        task=row.task,
        metric=row.metric,
        main=row.main,
        unit=row.unit,
        higher_is_better=row.higher_is_better,
        protocol=row.protocol,
        data_hash=row.data_hash,
        limit=row.limit,
    )


def run_of(row: ResultRow) -> str:
    """The run folder a checkpoint lies in (``<run>/checkpoints/step_*``), or the checkpoint itself."""
    path = Path(row.checkpoint)
    return str(path.parent.parent) if path.parent.name == "checkpoints" else str(path)


def combine_seeds(rows: Iterable[ResultRow]) -> tuple[float, float | None]:
    """Mean value over seeds and its standard error.

    Every seed is scored on the same evaluation items, so their sampling error does not average out over seeds. The
    standard error is therefore the larger of the mean sampling error and the error of the mean over seeds; None when
    neither is known.
    """
    measured = list(rows)
    values = [row.value for row in measured if row.value is not None]
    # Equal values are returned untouched: a mean could differ from them in the last bit and break a tie of ranks.
    mean = values[0] if min(values) == max(values) else statistics.fmean(values)
    errors = [row.standard_error for row in measured if row.standard_error is not None]
    candidates = [statistics.fmean(errors)] if errors else []
    if len(values) > 1:
        candidates.append(statistics.stdev(values) / math.sqrt(len(values)))
    return mean, max(candidates, default=None)


def join(evidence: Evidence) -> Points:
    """Points of every stratum; failed and not applicable rows make none (the report lists them)."""
    cells: dict[tuple[Column, str], list[ResultRow]] = {}
    for row in evidence.rows:
        if row.status == "ok":
            cells.setdefault((column_of(row), row.checkpoint_sha256), []).append(row)
    strata: dict[tuple[Column, str], list[Point]] = {}
    left_out: list[LeftOut] = []
    for (column, sha256), rows in cells.items():
        manifest = evidence.manifests.get(sha256)
        reason = _unusable(manifest, rows)
        if reason is not None:
            left_out.append(LeftOut(label=rows[0].label, metric=column.metric, reason=reason))
            continue
        assert manifest is not None
        assert manifest.passport is not None
        strata.setdefault((column, manifest.passport.hash), []).append(_point(manifest, rows))
    return Points(strata={key: tuple(points) for key, points in strata.items()}, left_out=tuple(left_out))


def _unusable(manifest: Manifest | None, rows: list[ResultRow]) -> str | None:
    if manifest is None:
        return "its manifest is not in the output folder"
    if not manifest.val:
        return "it records no validation loss"
    if manifest.passport is None:
        return "its validation loss has no passport, so it cannot be compared with any other"
    if not math.isfinite(manifest.val[-1].loss):
        return f"its final validation loss is {manifest.val[-1].loss}"
    if any(row.value is None or not math.isfinite(row.value) for row in rows):
        return "its value is not a finite number"
    return None


def _point(manifest: Manifest, rows: list[ResultRow]) -> Point:
    value, standard_error = combine_seeds(rows)
    baselines = [row.baseline for row in rows if row.baseline is not None]
    final = manifest.val[-1]
    return Point(
        checkpoint_sha256=rows[0].checkpoint_sha256,
        label=rows[0].label,
        run=run_of(rows[0]),
        step=manifest.step,
        unique_samples=manifest.unique_samples,
        loss=final.loss,
        loss_standard_error=final.standard_error,
        value=value,
        value_standard_error=standard_error,
        num_seeds=len({row.seed for row in rows}),
        baseline=statistics.fmean(baselines) if baselines else None,
    )
