"""Forecasts of models that were left out, by three kinds of model and with more and more known about a run."""

from dataclasses import dataclass

import numpy as np

from unveil_evalharness.correlate.columns import Columns
from unveil_evalharness.statistics.forecast import ModelName, leave_group_out
from unveil_evalharness.statistics.intervals import Interval

__all__ = ["ForecastSummary", "forecasts_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastSummary:
    """One model, judged on groups it has not seen."""

    model: ModelName
    known: tuple[str, ...]
    """What it reads of a run."""
    left_out: str
    """What was left out at a time: a model, or a cluster where there is one model."""
    num_groups: int
    mean_absolute_error: float
    bias: float
    worst_group_bias: float
    confidence: float
    coverage: float
    """Measured share of points inside intervals that claim `confidence`."""
    coverage_interval: Interval


def forecasts_of(columns: Columns, *, confidence: float) -> tuple[ForecastSummary, ...]:
    """Linear and hierarchical on x, and on x with the controls; isotonic on x. Empty without groups to leave out."""
    groups, left_out = (columns.model, "model") if columns.model is not None else (columns.cluster, "cluster")
    if groups is None:
        return ()
    alone = columns.x[:, None]
    sets: list[tuple[tuple[str, ...], np.ndarray]] = [(("x",), alone)]
    if columns.controls is not None:
        sets.append((("x", *columns.control_names), np.column_stack([alone, columns.controls])))
    found: list[ForecastSummary] = []
    for known, predictors in sets:
        kinds: tuple[ModelName, ...] = (
            ("linear", "isotonic", "hierarchical")
            if len(known) == 1
            else (
                "linear",
                "hierarchical",
            )
        )
        for kind in kinds:
            one = leave_group_out(_scaled(predictors), columns.y, groups, model=kind, confidence=confidence)
            if one is None:
                continue
            found.append(
                ForecastSummary(
                    model=kind,
                    known=known,
                    left_out=left_out,
                    num_groups=len(np.unique(groups)),
                    mean_absolute_error=one.mean_absolute_error,
                    bias=one.bias,
                    worst_group_bias=one.worst_group_bias,
                    confidence=confidence,
                    coverage=one.coverage,
                    coverage_interval=one.coverage_interval,
                )
            )
    return tuple(found)


def _scaled(predictors: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and spread 1: forecasts do not change, and no matrix is nearly singular for its units."""
    return (predictors - predictors.mean(axis=0)) / predictors.std(axis=0)
