"""A run's score from its validation loss, size and length, with an interval that was tested on the known runs."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from unveil_evalharness.errors import NotComparableError, ResultsError
from unveil_evalharness.predict.interval import Method, half_width, held_out_hits, method_for
from unveil_evalharness.predict.known import KnownRuns, Query
from unveil_evalharness.predict.linear import LinearFit, fit_linear, leave_group_out_errors

__all__ = ["Calibration", "Forecast", "Neighbour", "calibrate", "forecast"]

_FEWEST_RUNS = 8
_FEWEST_GROUPS = 4
_NUM_NEIGHBOURS = 3
_FEATURES = ("loss", "log parameters", "log steps")


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """A known run that resembles the one asked about."""

    label: str
    loss: float
    value: float
    distance: float
    """In standard deviations of the known runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What leaving out one group after the other says about forecasts for a group that has not been seen."""

    groups: Literal["model", "model and data"]
    num_groups: int
    method: Method
    level: float
    half_width: float
    coverage: float
    """Share of held-out runs that their intervals held, each interval made without the run's group."""
    mean_absolute_error: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a run will score."""

    label: str
    metric: str
    unit: str
    origin: str
    num_runs: int
    features: tuple[str, ...]
    value: float
    low: float
    high: float
    calibration: Calibration
    neighbours: tuple[Neighbour, ...]
    extrapolates: tuple[str, ...]
    """In what the run lies outside of everything known, in words; empty when it lies inside."""
    rises: bool
    """Its loss has been lower before: then loss and score may part (see `correlate`)."""
    loss: float
    steps: int
    at_steps: int
    """Length for which the score is forecast; equal to `steps` unless an earlier loss is used."""

    @property
    def half_width(self) -> float:
        """Of the interval."""
        return self.calibration.half_width


def forecast(known: KnownRuns, query: Query, *, level: float = 0.9) -> Forecast:
    """The score of `query` by least squares on loss, log parameters and log steps of the known runs.

    The interval is that for a new model where no known run has the query's model, else that for a new data set or run
    of a known model, which is narrower.

    Args:
        known: without the query itself.
        query: the run.
        level: share of intervals that shall hold the truth.

    Raises:
        ResultsError: too few known runs or groups; says how many are needed.
        NotComparableError: the query's loss has another passport than the known losses.
    """
    refuse_other_passport(known, query)
    rows = _features([*known.runs, query])
    return from_features(known, query, rows, names=_FEATURES, level=level, at_steps=query.steps)


def refuse_other_passport(known: KnownRuns, query: Query) -> None:
    """Raises when the two losses have no common axis.

    Raises:
        NotComparableError: names both passports.
    """
    if known.passport != query.passport:
        mine, theirs = query.passport[:6] or "none", known.passport[:6] or "none, as of a published table"
        raise NotComparableError(
            f"the loss of {query.label!r} has passport {mine}, the known losses {theirs}; losses are comparable under "
            "one passport only: re-measure with `evalharness run --tasks val_loss`, or pass a published run's name"
        )


def from_features(
    known: KnownRuns,
    query: Query,
    rows: Float[np.ndarray, "q f"],
    *,
    names: tuple[str, ...],
    level: float,
    at_steps: int,
) -> Forecast:
    """`forecast` on any features; the last of `rows` is the query's.

    Raises:
        ResultsError: too few known runs or groups.
    """
    varying = [index for index in range(rows.shape[1]) if len(known) and np.ptp(rows[:-1, index]) > 1e-12]
    features, asked = rows[:-1, varying], rows[-1:, varying]
    if len(known) < _FEWEST_RUNS or not varying:
        raise ResultsError(
            f"{len(known)} known runs with {known.metric} in {known.origin} are too few for a forecast with a tested "
            f"interval; {_FEWEST_RUNS} runs are needed that differ in loss"
        )
    calibration = calibrate(known, features, level=level, new_model=query.model not in {r.model for r in known.runs})
    fit = fit_linear(features, known.values)
    value = float(fit(asked)[0])
    return Forecast(
        label=query.label,
        metric=known.metric,
        unit=known.unit,
        origin=known.origin,
        num_runs=len(known),
        features=tuple(names[index] for index in varying),
        value=value,
        low=value - calibration.half_width,
        high=value + calibration.half_width,
        calibration=calibration,
        neighbours=_neighbours(known, fit, features, asked),
        extrapolates=_outside(rows, names, fit, features, asked, known, varying),
        rises=query.rises,
        loss=query.loss,
        steps=query.steps,
        at_steps=at_steps,
    )


def calibrate(known: KnownRuns, features: Float[np.ndarray, "r f"], *, level: float, new_model: bool) -> Calibration:
    """Half-width and measured coverage for a run of a new model, or of a known model on other data.

    Raises:
        ResultsError: fewer than four groups.
    """
    labels = [run.model if new_model else run.pair for run in known.runs]
    groups: Int[np.ndarray, " r"] = np.unique(np.array(labels), return_inverse=True)[1]
    num_groups = int(groups.max()) + 1
    kind: Literal["model", "model and data"] = "model" if new_model else "model and data"
    if num_groups < _FEWEST_GROUPS:
        raise ResultsError(
            f"the known runs of {known.origin} make {num_groups} groups by {kind}, and {_FEWEST_GROUPS} are needed to "
            "tell how far a forecast for another one errs; evaluate more of them first"
        )
    errors = leave_group_out_errors(features, known.values, groups)
    return Calibration(
        groups=kind,
        num_groups=num_groups,
        method=method_for(num_groups, level),
        level=level,
        half_width=half_width(errors, groups, level=level),
        coverage=float(np.mean(held_out_hits(features, known.values, groups, level=level))),
        mean_absolute_error=float(np.mean(np.abs(errors))),
    )


def _features(runs: list[Query]) -> Float[np.ndarray, "q f"]:
    return np.array([(run.loss, math.log(run.params), math.log(run.steps)) for run in runs])


def _neighbours(
    known: KnownRuns, fit: LinearFit, features: Float[np.ndarray, "r v"], asked: Float[np.ndarray, "1 v"]
) -> tuple[Neighbour, ...]:
    distances = np.linalg.norm(fit.standardised(features) - fit.standardised(asked), axis=1)
    return tuple(
        Neighbour(
            label=known.runs[index].label,
            loss=known.runs[index].loss,
            value=float(known.values[index]),
            distance=float(distances[index]),
        )
        for index in np.argsort(distances, kind="stable")[:_NUM_NEIGHBOURS]
    )


def _outside(
    rows: Float[np.ndarray, "q f"],
    names: tuple[str, ...],
    fit: LinearFit,
    features: Float[np.ndarray, "r v"],
    asked: Float[np.ndarray, "1 v"],
    known: KnownRuns,
    varying: list[int],
) -> tuple[str, ...]:
    """Columns beyond the range of the known runs, and combinations farther out than any of them."""
    found = []
    for index, name in enumerate(names):
        low, high, mine = rows[:-1, index].min(), rows[:-1, index].max(), rows[-1, index]
        slack = 1e-9 * max(1.0, abs(high))
        if not low - slack <= mine <= high + slack:
            shown = [math.exp(number) if name.startswith("log ") else number for number in (mine, low, high)]
            found.append("{} {:.4g} outside of {:.4g} to {:.4g}".format(name.removeprefix("log "), *shown))
    if not found and varying and float(fit.distance(asked)[0]) > float(fit.distance(features).max()) + 1e-9:
        found.append(f"this combination of {', '.join(names)} is farther out than any of the {len(known)} known runs")
    return tuple(found)
