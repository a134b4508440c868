"""Correlates the final validation loss of checkpoints with what they score downstream, one metric at a time.

Losses with different passports, and values with different protocols, data or limits, never share axes: each such set of
checkpoints (a stratum) is reported by itself. Asked for one joint figure over several strata, `correlate` refuses and
names the first field that differs.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unveil_evalharness.correlate.axis import Axis, first_difference
from unveil_evalharness.correlate.evidence import Evidence, read_evidence
from unveil_evalharness.correlate.join import Column, LeftOut, Point, Points, join
from unveil_evalharness.correlate.statistics import Refusal, Statistics, refusal, summarise
from unveil_evalharness.correlate.study import Study, study_of
from unveil_evalharness.correlate.verdict import Verdict, judge
from unveil_evalharness.correlate.words import answer, cautions
from unveil_evalharness.errors import NotComparableError, ResultsError

__all__ = ["NUM_RESAMPLES", "Correlation", "Stratum", "correlate", "correlate_evidence", "correlate_points"]

NUM_RESAMPLES = 2_000
"""Settle the second decimal of an interval's end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stratum:
    """One metric over the checkpoints whose losses and values may be compared."""

    column: Column
    passport: str
    """Hash of the passport that the losses share."""
    passport_fields: dict[str, Any]
    status: Literal["ok", "refused"]
    statistics: Statistics | None
    refusal: Refusal | None
    answer: str
    """The result, or the refusal, in one plain sentence."""
    cautions: tuple[str, ...]
    points: tuple[Point, ...]
    verdict: Verdict | None = None
    """None when refused."""
    study: Study | None = None
    """The figures behind the verdict, from all sides; None when refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Correlation:
    """Every stratum of the given results, and what could not be placed."""

    schema_version: int = 1
    outputs: tuple[str, ...]
    num_resamples: int
    seed: int
    confidence: float
    strata: tuple[Stratum, ...]
    left_out: tuple[LeftOut, ...]

    def to_json(self) -> str:
        """The whole result as JSON; every number in it is finite."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False, ensure_ascii=False)

    @property
    def any_ok(self) -> bool:
        """Whether at least one stratum has coefficients."""
        return any(stratum.status == "ok" for stratum in self.strata)


def correlate(
    output_paths: Sequence[Path],
    *,
    metrics: Sequence[str] = (),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
    joint: bool = False,
    x: str = "",
) -> Correlation:
    """Relates validation loss to every metric in the given output folders of ``evalharness run``.

    Args:
        output_paths: one or more output folders; their rows are taken together.
        metrics: metric or task names to keep; empty keeps all.
        num_resamples: bootstrap resamples behind each interval.
        seed: of the resampling.
        confidence: level of the intervals.
        joint: insist on one correlation per metric over all checkpoints.
        x: a task or metric to take in place of the manifests' losses, such as ``"val_loss"``.

    Raises:
        ResultsError: the folders cannot be read, or none of their metrics is called so.
        NotComparableError: `joint` was asked for checkpoints that may not share axes.
    """
    return correlate_evidence(
        read_evidence(output_paths, with_passports=bool(x)),
        metrics=metrics,
        num_resamples=num_resamples,
        seed=seed,
        confidence=confidence,
        joint=joint,
        x=x,
    )


def correlate_evidence(
    evidence: Evidence,
    *,
    metrics: Sequence[str] = (),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
    joint: bool = False,
    x: str = "",
) -> Correlation:
    """`correlate` on rows and manifests that are already read."""
    return correlate_points(
        join(evidence, x=x),
        outputs=evidence.outputs,
        metrics=metrics,
        num_resamples=num_resamples,
        seed=seed,
        confidence=confidence,
        joint=joint,
    )


def correlate_points(
    points: Points,
    *,
    outputs: tuple[str, ...],
    metrics: Sequence[str] = (),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
    joint: bool = False,
) -> Correlation:
    """`correlate` on points, wherever they come from."""
    points = _only(points, metrics)
    if joint:
        _refuse_mixture(points)
    strata = tuple(
        _stratum(column, points.axes[key], members, num_resamples=num_resamples, seed=seed, confidence=confidence)
        for (column, key), members in points.strata.items()
    )
    return Correlation(
        outputs=outputs,
        num_resamples=num_resamples,
        seed=seed,
        confidence=confidence,
        strata=strata,
        left_out=points.left_out,
    )


def _only(points: Points, metrics: Sequence[str]) -> Points:
    """The points of the named metrics, or of all metrics of the named tasks."""
    if not metrics:
        return points
    known = {column.metric: column.task for column, _ in points.strata}
    known |= {left_out.metric: left_out.metric.partition(".")[0] for left_out in points.left_out}
    unknown = [name for name in metrics if name not in known and name not in known.values()]
    if unknown:
        raise ResultsError(f"no results for metric {unknown[0]!r}; metrics here: {', '.join(sorted(known)) or 'none'}")
    wanted = {metric for metric, task in known.items() if metric in metrics or task in metrics}
    return Points(
        strata={key: members for key, members in points.strata.items() if key[0].metric in wanted},
        left_out=tuple(left_out for left_out in points.left_out if left_out.metric in wanted),
        axes=points.axes,
    )


def _refuse_mixture(points: Points) -> None:
    """Raises when a metric has more than one stratum, naming the first field that keeps two of them apart."""
    first: dict[str, tuple[Column, str, str]] = {}
    for (column, passport), members in points.strata.items():
        here = (column, passport, members[0].label)
        other_column, other_passport, other_label = first.setdefault(column.metric, here)
        pair = f"{other_label!r} and {members[0].label!r}"
        if passport != other_passport:
            field = first_difference(points.axes[other_passport].fields, points.axes[passport].fields)
            raise NotComparableError(
                f"{column.metric}: the {_plural(column.x)} of {pair} differ in {field}, so they have no common axis; "
                "leave out --joint to see each group by itself"
            )
        for name in ("protocol", "data_hash", "limit"):
            mine, other = getattr(column, name), getattr(other_column, name)
            if mine != other:
                raise NotComparableError(
                    f"{column.metric}: the values of {pair} differ in {name} ({other} and {mine}), so they were not "
                    "measured alike; leave out --joint to see each group by itself"
                )


def _plural(name: str) -> str:
    return "validation losses" if name == "validation loss" else f"values of {name}"


def _stratum(
    column: Column, axis: Axis, points: tuple[Point, ...], *, num_resamples: int, seed: int, confidence: float
) -> Stratum:
    losses = np.array([point.loss for point in points])
    values = np.array([point.value for point in points])
    refused = refusal(losses, values)
    options = {"num_resamples": num_resamples, "seed": seed, "confidence": confidence}
    statistics, study, verdict = None, None, None
    notes: tuple[str, ...] = ()
    if refused is not None:
        sentence = f"No correlation for {column.metric}: {refused.text}."
    else:
        clusters = np.unique([point.cluster for point in points], return_inverse=True)[1]
        statistics = summarise(losses, values, groups=clusters, **options)
        study = study_of(column, points, **options)
        verdict = judge(column, points, statistics, study)
        sentence, notes = answer(column, points, statistics), cautions(column, points, statistics)
    return Stratum(
        column=column,
        passport=axis.key,
        passport_fields=dict(axis.fields),
        status="refused" if refused is not None else "ok",
        statistics=statistics,
        refusal=refused,
        answer=sentence,
        cautions=notes,
        points=points,
        verdict=verdict,
        study=study,
    )
