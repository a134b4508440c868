"""Joins result rows with manifests: one point per checkpoint and metric, grouped by what may share a pair of axes.

The horizontal axis is a validation loss, so all its points have one passport; the vertical axis is a metric, so all its
points have one protocol fingerprint, one data hash and one ``--limit``. Such a set of points is a stratum.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unveil_backbones.manifest import Manifest

from unveil_evalharness.correlate.axis import Axis
from unveil_evalharness.correlate.evidence import Evidence
from unveil_evalharness.results import ResultRow

__all__ = ["Column", "LeftOut", "Point", "Points", "column_of", "combine_seeds", "join", "mark_overfitted", "run_of"]


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
    x: str = "validation loss"
    """What stands on the other axis."""
    lower_x_is_better: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One checkpoint: its final validation loss and one metric, averaged over seeds.

    Fields that a source does not know are empty or None; what needs them is then left out of the study.
    """

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
    model: str = ""
    """Encoder; runs of one model are compared with each other."""
    data: str = ""
    """Which images it was trained on."""
    source: str = ""
    """Distribution that the images come from; losses are offset between sources."""
    setting: str = ""
    """Runs that differ in nothing but their length share one (model, data, seed)."""
    cluster: str = ""
    """Points of one cluster are not independent."""
    overfitted: bool | None = None
    """A shorter run of the same setting has a lower loss."""
    setting_overfits: bool | None = None
    """Some run of the setting is over-fitted."""
    controls: Mapping[str, float | str] = field(default_factory=dict)
    """What else could explain the value, by name."""
    strata: Mapping[str, str] = field(default_factory=dict)
    """Further groups to look at by themselves, by name."""
    value_seed_deviation: float | None = None
    """Standard deviation of the value over seeds of the evaluation, where it was repeated."""


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
    axes: Mapping[str, Axis] = field(default_factory=dict)
    """By key: what the passport hashes of `strata` stand for."""


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


def join(evidence: Evidence, *, x: str = "") -> Points:
    """Points of every stratum; failed and not applicable rows make none (the report lists them).

    Args:
        evidence: rows and manifests.
        x: a task or metric whose values stand in place of the manifest's final loss, such as ``"val_loss"``.
    """
    cells: dict[tuple[Column, str], list[ResultRow]] = {}
    for row in evidence.rows:
        if row.status == "ok":
            cells.setdefault((column_of(row), row.checkpoint_sha256), []).append(row)
    measured = _measured(cells, x) if x else {}
    strata: dict[tuple[Column, str], list[Point]] = {}
    axes: dict[str, Axis] = {}
    left_out: list[LeftOut] = []
    for (column, sha256), rows in cells.items():
        if x in (column.metric, column.task):
            continue
        manifest = evidence.manifests.get(sha256)
        reason = _unusable(manifest, rows, needs_loss=not x)
        if reason is None and x and sha256 not in measured:
            reason = f"it has no result of {x}"
        if reason is not None:
            left_out.append(LeftOut(label=rows[0].label, metric=column.metric, reason=reason))
            continue
        assert manifest is not None
        placed = measured[sha256] if x else [_of_manifest(manifest)]
        for axis, loss, error in placed:
            axes[axis.key] = axis
            seen = replace(column, x=axis.name, lower_x_is_better=axis.lower_is_better)
            strata.setdefault((seen, axis.key), []).append(_point(manifest, rows, loss, error))
    return Points(
        strata={key: mark_overfitted(points) for key, points in strata.items()}, left_out=tuple(left_out), axes=axes
    )


def _of_manifest(manifest: Manifest) -> tuple[Axis, float, float | None]:
    assert manifest.passport is not None
    axis = Axis(key=manifest.passport.hash, name="validation loss", fields=manifest.passport.to_json())
    return axis, manifest.val[-1].loss, manifest.val[-1].standard_error


def _measured(
    cells: Mapping[tuple[Column, str], list[ResultRow]], x: str
) -> dict[str, list[tuple[Axis, float, float | None]]]:
    """The axis, value and standard error of each checkpoint (by SHA-256) in the results of a task or metric."""
    found: dict[str, list[tuple[Axis, float, float | None]]] = {}
    for (column, sha256), rows in cells.items():
        if column.metric != x and not (column.task == x and column.main):
            continue
        if any(row.value is None or not math.isfinite(row.value) for row in rows):
            continue
        value, error = combine_seeds(rows)
        fields = {
            "objective": column.metric, "protocol": column.protocol, "data_hash": column.data_hash,
            "limit": column.limit,
        }  # fmt: skip
        key = f"{column.metric} {column.protocol} {column.data_hash} {column.limit}"
        name = "validation loss" if column.task == "val_loss" else column.metric
        axis = Axis(key=key, name=name, fields=fields, lower_is_better=not column.higher_is_better)
        found.setdefault(sha256, []).append((axis, value, error))
    return found


def mark_overfitted(points: Sequence[Point]) -> tuple[Point, ...]:
    """Fills in `overfitted` and `setting_overfits`: is the loss higher than in a shorter run of the same setting?"""
    settings: dict[str, list[Point]] = {}
    for point in points:
        if point.setting and point.step > 0:
            settings.setdefault(point.setting, []).append(point)
    lowest_before: dict[tuple[str, int], float] = {}
    for setting, members in settings.items():
        lowest = math.inf
        for step in sorted({member.step for member in members}):
            lowest_before[setting, step] = lowest
            lowest = min(lowest, *(member.loss for member in members if member.step == step))
    rose = [
        point.loss > lowest_before[point.setting, point.step] if (point.setting, point.step) in lowest_before else None
        for point in points
    ]
    overfitting = {point.setting for point, worse in zip(points, rose, strict=True) if worse}
    return tuple(
        replace(point, overfitted=worse, setting_overfits=None if worse is None else point.setting in overfitting)
        for point, worse in zip(points, rose, strict=True)
    )


def _unusable(manifest: Manifest | None, rows: list[ResultRow], *, needs_loss: bool) -> str | None:
    if manifest is None:
        return "its manifest is not in the output folder"
    if needs_loss and not manifest.val:
        return "it records no validation loss"
    if needs_loss and manifest.passport is None:
        return "its validation loss has no passport, so it cannot be compared with any other"
    if needs_loss and not math.isfinite(manifest.val[-1].loss):
        return f"its final validation loss is {manifest.val[-1].loss}"
    if any(row.value is None or not math.isfinite(row.value) for row in rows):
        return "its value is not a finite number"
    return None


def _point(manifest: Manifest, rows: list[ResultRow], loss: float, loss_error: float | None) -> Point:
    value, standard_error = combine_seeds(rows)
    baselines = [row.baseline for row in rows if row.baseline is not None]
    values = [row.value for row in rows if row.value is not None]
    model = manifest.encoder.name
    controls = {"log params": manifest.num_parameters, "log steps": manifest.step}
    return Point(
        checkpoint_sha256=rows[0].checkpoint_sha256,
        label=rows[0].label,
        run=run_of(rows[0]),
        step=manifest.step,
        unique_samples=manifest.unique_samples,
        loss=loss,
        loss_standard_error=loss_error,
        value=value,
        value_standard_error=standard_error,
        num_seeds=len({row.seed for row in rows}),
        baseline=statistics.fmean(baselines) if baselines else None,
        model=model,
        data=f"{manifest.unique_samples} images",
        setting=f"{model} × {manifest.data_hash} × seed {manifest.seed}",
        cluster=run_of(rows[0]),
        controls={name: math.log(number) for name, number in controls.items() if number > 0},
        value_seed_deviation=statistics.stdev(values) if len(values) > 1 else None,
    )
