"""Joins result rows with manifests: one point per checkpoint and metric, grouped by what may share a pair of axes.

The horizontal axis is a validation loss, so all its points have one passport; the vertical axis is a metric, so all its
points have one protocol fingerprint, one data hash and one ``--limit``. Such a set of points is a stratum.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unveil_backbones.manifest import Manifest

from unveil_evalharness.correlate.axis import Axis
from unveil_evalharness.correlate.cells import Cell, Column, cells_of_rows, column_of, combine_seeds, run_of
from unveil_evalharness.correlate.evidence import Evidence

__all__ = [
    "Column",
    "LeftOut",
    "Point",
    "Points",
    "column_of",
    "combine_seeds",
    "join",
    "join_cells",
    "mark_overfitted",
    "run_of",
]


_LOSS_TASK = "val_loss"


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


def join(evidence: Evidence, *, x: str = "") -> Points:
    """Points of every stratum; failed and not applicable rows make none (the report lists them).

    Args:
        evidence: rows and manifests.
        x: a task or metric whose values stand in place of the manifest's final loss, such as ``"val_loss"``.
    """
    return join_cells(cells_of_rows(evidence.rows), evidence.manifests, x=x, passports=evidence.passports)


def join_cells(
    cells: Sequence[Cell],
    manifests: Mapping[str, Manifest],
    *,
    x: str = "",
    passports: Mapping[str, Mapping[str, Any]] | None = None,
) -> Points:
    """`join` on cells; manifests, and passports of losses measured again, by SHA-256 of their checkpoints."""
    measured = _measured(cells, x, passports or {}) if x else {}
    losses = {} if x else _recorded(manifests)
    placed = measured if x else losses
    strata: dict[tuple[Column, str], list[Point]] = {}
    axes: dict[str, Axis] = {}
    left_out: list[LeftOut] = []
    seen: dict[tuple[Column, str], Column] = {}
    for cell in cells:
        if x in (cell.column.metric, cell.column.task):
            continue
        manifest = manifests.get(cell.sha256)
        reason = _unusable(manifest, cell, x=x, is_placed=cell.sha256 in placed)
        if reason is not None:
            left_out.append(LeftOut(label=cell.label, metric=cell.column.metric, reason=reason))
            continue
        assert manifest is not None
        for axis, loss, error in placed[cell.sha256]:
            axes[axis.key] = axis
            column = seen.get((cell.column, axis.key))
            if column is None:
                column = replace(cell.column, x=axis.name, lower_x_is_better=axis.lower_is_better)
                seen[cell.column, axis.key] = column
            strata.setdefault((column, axis.key), []).append(_point(manifest, cell, loss, error))
    return Points(
        strata={key: mark_overfitted(points) for key, points in strata.items()}, left_out=tuple(left_out), axes=axes
    )


def _recorded(manifests: Mapping[str, Manifest]) -> dict[str, list[tuple[Axis, float, float | None]]]:
    """The axis, value and standard error of each checkpoint's last recorded loss that can be compared."""
    found: dict[str, list[tuple[Axis, float, float | None]]] = {}
    axes: dict[str, Axis] = {}  # by the passport's words: there are few, and hashing one takes as long as reading them
    for sha256, manifest in manifests.items():
        passport = manifest.passport
        if passport is None or _loss_fault(manifest) is not None:
            continue
        axis = axes.get(repr(passport))
        if axis is None:
            axis = Axis(key=passport.hash, name="validation loss", fields=passport.to_json())
            axes[repr(passport)] = axis
        found[sha256] = [(axis, manifest.val[-1].loss, manifest.val[-1].standard_error)]
    return found


def _measured(
    cells: Sequence[Cell], x: str, passports: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[tuple[Axis, float, float | None]]]:
    """The axis, value and standard error of each checkpoint (by SHA-256) in the results of a task or metric."""
    found: dict[str, list[tuple[Axis, float, float | None]]] = {}
    for cell in cells:
        column = cell.column
        if (column.metric != x and not (column.task == x and column.main)) or not math.isfinite(cell.value):
            continue
        passport = passports.get(cell.sha256, {})
        if column.task == _LOSS_TASK and not passport:
            continue  # without it nobody knows what the loss may be compared with
        shared_fields = {name: value for name, value in passport.items() if name != "hash"}
        fields = {"objective": column.metric, **shared_fields, "protocol": column.protocol,
                  "data_hash": column.data_hash, "limit": column.limit}  # fmt: skip
        shared = passport.get("hash", column.metric)
        key = f"{shared} {column.protocol} {column.data_hash} {column.limit}"
        name = "validation loss" if column.task == _LOSS_TASK else column.metric
        axis = Axis(key=key, name=name, fields=fields, lower_is_better=not column.higher_is_better)
        found.setdefault(cell.sha256, []).append((axis, cell.value, cell.standard_error))
    return found


def mark_overfitted(points: Sequence[Point]) -> tuple[Point, ...]:
    """Fills in `overfitted` and `setting_overfits`: is the loss higher than in a shorter run of the same setting?"""
    lowest_before: dict[tuple[str, int], float] = {}
    lowest: dict[str, float] = {}
    known = sorted((point.step, point.setting, point.loss) for point in points if point.setting and point.step > 0)
    for step, members in itertools.groupby(known, key=lambda item: item[0]):
        losses = [(setting, loss) for _, setting, loss in members]
        lowest_before.update({(setting, step): lowest.get(setting, math.inf) for setting, _ in losses})
        for setting, loss in losses:
            lowest[setting] = min(loss, lowest.get(setting, math.inf))
    rose = [
        point.loss > lowest_before[point.setting, point.step] if (point.setting, point.step) in lowest_before else None
        for point in points
    ]
    overfitting = {point.setting for point, worse in zip(points, rose, strict=True) if worse}
    return tuple(
        replace(point, overfitted=worse, setting_overfits=None if worse is None else point.setting in overfitting)
        for point, worse in zip(points, rose, strict=True)
    )


def _unusable(manifest: Manifest | None, cell: Cell, *, x: str, is_placed: bool) -> str | None:
    if manifest is None:
        return "its manifest is not in the output folder"
    if not is_placed:
        return f"it has no result of {x} (with its passport)" if x else _loss_fault(manifest)
    return None if math.isfinite(cell.value) else "its value is not a finite number"


def _loss_fault(manifest: Manifest) -> str | None:
    if not manifest.val:
        return "it records no validation loss"
    if manifest.passport is None:
        return "its validation loss has no passport, so it cannot be compared with any other"
    if not math.isfinite(manifest.val[-1].loss):
        return f"its final validation loss is {manifest.val[-1].loss}"
    return None


def _point(manifest: Manifest, cell: Cell, loss: float, loss_error: float | None) -> Point:
    model, run = manifest.encoder.name, run_of(cell)
    controls = {"log params": manifest.num_parameters, "log steps": manifest.step}
    return Point(
        checkpoint_sha256=cell.sha256,
        label=cell.label,
        run=run,
        step=manifest.step,
        unique_samples=manifest.unique_samples,
        loss=loss,
        loss_standard_error=loss_error,
        value=cell.value,
        value_standard_error=cell.standard_error,
        num_seeds=cell.num_seeds,
        baseline=cell.baseline,
        model=model,
        data=f"{manifest.unique_samples} images",
        setting=f"{model} × {manifest.data_hash} × seed {manifest.seed}",
        cluster=run,
        controls={name: math.log(number) for name, number in controls.items() if number > 0},
        value_seed_deviation=cell.seed_deviation,
    )
