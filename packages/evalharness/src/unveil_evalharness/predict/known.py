"""The runs a forecast learns from: their losses, sizes and lengths, and one metric; and the run that is asked about."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from unveil_backbones.manifest import Manifest

from unveil_evalharness.correlate.evidence import Evidence
from unveil_evalharness.correlate.join import Column, join
from unveil_evalharness.errors import NotComparableError, ResultsError

if TYPE_CHECKING:
    import polars

__all__ = ["History", "KnownRuns", "Query", "known_from_evidence", "known_from_table", "query_from_manifest"]

History = tuple[tuple[int, float], ...]
"""Validation losses on the way, as (steps, loss) by rising steps, the last of them the run's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A run whose score is asked for."""

    label: str
    model: str
    pair: str
    """Model and data: runs that differ in nothing but their length share it."""
    source: str
    """Where the images come from, such as ``"IN1K"``; empty where it is not known."""
    params: float
    """Parameters of the encoder."""
    images: float
    """Different training images."""
    history: History
    passport: str = ""
    """Hash of the passport of its losses; empty for a published table, which has none."""

    @property
    def steps(self) -> int:
        """Optimiser steps so far."""
        return self.history[-1][0]

    @property
    def loss(self) -> float:
        """The last validation loss."""
        return self.history[-1][1]

    @property
    def rises(self) -> bool:
        """Whether the loss has been lower before: the sign of over-fitting (arXiv 2206.04664)."""
        return self.loss > min(loss for _, loss in self.history)


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownRuns:
    """Runs with a measured metric; all losses have one passport and all values one protocol."""

    metric: str
    unit: str
    origin: str
    """Where the runs come from, for people."""
    runs: tuple[Query, ...]
    values: Float[np.ndarray, " r"]
    passport: str = ""

    def __len__(self) -> int:
        return len(self.runs)

    def keep(self, kept: Sequence[bool]) -> "KnownRuns":
        """The runs whose flag is set."""
        chosen = [index for index, flag in enumerate(kept) if flag]
        return KnownRuns(
            metric=self.metric,
            unit=self.unit,
            origin=self.origin,
            runs=tuple(self.runs[index] for index in chosen),
            values=self.values[chosen],
            passport=self.passport,
        )

    def find(self, label: str) -> Query:
        """The run called `label`, by its full name or by words that only it has.

        Raises:
            ResultsError: no run, or several, are called so.
        """
        exact = [run for run in self.runs if run.label == label]
        words = label.lower().split()
        near = exact or [run for run in self.runs if all(word in run.label.lower() for word in words)]
        if len(near) == 1:
            return near[0]
        names = ", ".join(repr(run.label) for run in (near or self.runs)[:4])
        raise ResultsError(
            f"--run {label!r} names {len(near)} of the {len(self)} known runs; they are called like {names}"
        )


def known_from_table(table: "polars.DataFrame", *, metric: str, unit: str, origin: str) -> KnownRuns:
    """Runs of a published table, each with the shorter runs of its pair as its history.

    Args:
        table: columns run, model, pair, source, params, num_images, steps, loss, metric and value, as
            `unveil_evalharness.published.read_published` gives them.
        metric: which metric's rows to take.
        unit: of the values.
        origin: the table's name for people.

    Raises:
        ResultsError: the table has no rows of this metric, or no losses.
    """
    import polars

    with_loss = table.drop_nulls(["loss", "steps"])
    if with_loss.is_empty():
        raise ResultsError(f"{origin} holds no validation losses, so nothing can be forecast from it; use xie2023")
    rows = with_loss.filter(polars.col("metric") == metric)
    if rows.is_empty():
        names = ", ".join(with_loss["metric"].unique().sort().to_list())
        raise ResultsError(f"{origin} has no metric {metric!r}; it has {names}")
    records = rows.to_dicts()
    runs = []
    for record in records:
        shorter = sorted(
            (other["steps"], other["loss"])
            for other in records
            if other["pair"] == record["pair"] and other["steps"] <= record["steps"]
        )
        runs.append(
            Query(
                label=record["run"],
                model=record["model"],
                pair=record["pair"],
                source=record["source"],
                params=float(record["params"]),
                images=float(record["num_images"]),
                history=tuple(shorter),
            )
        )
    values = np.array([record["value"] for record in records], dtype=np.float64)
    return KnownRuns(metric=metric, unit=unit, origin=origin, runs=tuple(runs), values=values)


def known_from_evidence(evidence: Evidence, *, metric: str) -> KnownRuns:
    """Checkpoints of output folders of ``evalharness run`` that have a loss and this metric.

    Raises:
        ResultsError: no checkpoint has both.
        NotComparableError: their losses have several passports, or their values several protocols.
    """
    strata = {
        key: points
        for key, points in join(evidence).strata.items()
        if metric in (key[0].metric, key[0].task) and (key[0].metric == metric or key[0].main)
    }
    if not strata:
        names = sorted({row.metric for row in evidence.rows if row.status == "ok"})
        raise ResultsError(
            f"no checkpoint in {', '.join(evidence.outputs)} has both a validation loss and {metric!r}; metrics here: "
            f"{', '.join(names) or 'none'}"
        )
    if len(strata) > 1:
        raise NotComparableError(_why_several(list(strata), metric))
    ((column, passport), points), *_ = strata.items()
    runs = tuple(
        query_from_manifest(evidence.manifests[point.checkpoint_sha256], label=point.label) for point in points
    )
    return KnownRuns(
        metric=column.metric,
        unit=column.unit,
        origin=", ".join(evidence.outputs),
        runs=runs,
        values=np.array([point.value for point in points], dtype=np.float64),
        passport=passport,
    )


def _why_several(keys: list[tuple[Column, str]], metric: str) -> str:
    (first, passport), (second, other_passport) = keys[:2]
    for name in ("protocol", "data_hash", "limit"):
        mine, other = (getattr(column, name) for column in (first, second))
        if mine != other:
            return (
                f"values of {metric} differ in {name} ({mine} and {other}), so they were not measured alike; "
                "name folders whose runs share it"
            )
    return (
        f"the validation losses behind {metric} have several passports ({passport[:6]} and {other_passport[:6]}); "
        "`evalharness correlate --joint` names the field that differs; name folders whose runs share it"
    )


def query_from_manifest(manifest: Manifest, *, label: str | None = None) -> Query:
    """A checkpoint of ours as a run to ask about.

    Args:
        manifest: the checkpoint's.
        label: what to call it; its own label when left out.

    Raises:
        ResultsError: it records no finite validation loss.
    """
    history = tuple(
        (point.step, point.loss) for point in manifest.val if point.step <= manifest.step and math.isfinite(point.loss)
    )
    if not history:
        raise ResultsError(
            f"{label or manifest.label} records no validation loss; train with validation, or measure it with "
            "`evalharness run --tasks val_loss`"
        )
    return Query(
        label=label or manifest.label,
        model=manifest.encoder.name,
        pair=f"{manifest.encoder.name} × {manifest.data_hash}",
        source="",
        params=float(manifest.num_parameters),
        images=float(manifest.unique_samples),
        history=history,
        passport="" if manifest.passport is None else manifest.passport.hash,
    )
