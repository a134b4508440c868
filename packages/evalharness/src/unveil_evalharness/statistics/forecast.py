"""Forecasts of a group that was left out: their error, and how often their intervals hold the truth.

Three models of y: *linear* (least squares, t interval), *isotonic* (falling in the first column, interval from the
residuals it leaves), *hierarchical* (random intercept per group; a new group's intercept is unknown, so the interval
holds the spread of the groups, with the degrees of freedom of the groups). Shapes: n points, k columns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unveil_evalharness.statistics.intervals import Interval, student_t_quantile, wilson_interval
from unveil_evalharness.statistics.isotonic import fit_decreasing, predict_between
from unveil_evalharness.statistics.mixed import fit_random_intercept

__all__ = ["Forecast", "ModelName", "leave_group_out"]

ModelName = Literal["linear", "isotonic", "hierarchical"]
Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Groups = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Every point forecast by a model that has not seen its group."""

    model: ModelName
    predicted: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean_absolute_error: float
    bias: float
    """Mean of truth minus forecast."""
    worst_group_bias: float
    """The largest in size of the groups' mean truth minus forecast."""
    confidence: float
    coverage: float
    """Share of points within their interval; `confidence` is what it claims to be."""
    coverage_interval: Interval
    """Wilson, as if the points were independent."""


def leave_group_out(
    predictors: Matrix, y: Vector, groups: Groups, *, model: ModelName, confidence: float = 0.95
) -> Forecast | None:
    """Forecasts each group from all others.

    Args:
        predictors: the loss in the first column, controls after it, [n, k]; isotonic uses the first alone.
        y: [n].
        groups: integers, [n]; at least two different.
        model: which model.
        confidence: nominal level of the intervals.

    Returns:
        None when there are fewer than two groups, or too few points outside of one to fit the model.
    """
    names = np.unique(groups)
    needed = 4 if model == "isotonic" else predictors.shape[1] + 3
    if len(names) < 2 or any((groups != name).sum() < needed for name in names):
        return None
    if model == "hierarchical" and len(names) < 3:
        return None
    fit = _MODELS[model]
    predicted, reach = np.empty(len(y)), np.empty(len(y))
    for name in names:
        test = groups == name
        predicted[test], reach[test] = fit(predictors[~test], y[~test], groups[~test], predictors[test], confidence)
    error = y - predicted
    inside = int((np.abs(error) <= reach).sum())
    biases = [float(error[groups == name].mean()) for name in names]
    return Forecast(
        model=model,
        predicted=tuple(predicted.tolist()),
        low=tuple((predicted - reach).tolist()),
        high=tuple((predicted + reach).tolist()),
        mean_absolute_error=float(np.abs(error).mean()),
        bias=float(error.mean()),
        worst_group_bias=max(biases, key=abs),
        confidence=confidence,
        coverage=inside / len(y),
        coverage_interval=wilson_interval(inside, len(y)),
    )


def _linear(x: Matrix, y: Vector, groups: Groups, new: Matrix, confidence: float) -> tuple[Vector, Vector]:
    del groups
    design, target = _with_intercept(x), _with_intercept(new)
    inverse = np.linalg.pinv(design)  # of the design, not of its square: leverages are squares, never below 0
    solution = inverse @ y
    degrees = len(y) - design.shape[1]
    variance = float(((y - design @ solution) ** 2).sum()) / degrees
    spread = np.sqrt(variance * (1.0 + ((target @ inverse) ** 2).sum(1)))
    return target @ solution, student_t_quantile(0.5 + confidence / 2.0, degrees) * spread


def _isotonic(x: Matrix, y: Vector, groups: Groups, new: Matrix, confidence: float) -> tuple[Vector, Vector]:
    del groups
    knots, fitted = fit_decreasing(x[:, 0], y)
    left = np.sort(np.abs(y - predict_between(knots, fitted, x[:, 0])))
    rank = min(len(left), math.ceil((len(left) + 1) * confidence))
    return predict_between(knots, fitted, new[:, 0]), np.full(len(new), left[rank - 1])


def _hierarchical(x: Matrix, y: Vector, groups: Groups, new: Matrix, confidence: float) -> tuple[Vector, Vector]:
    target = _with_intercept(new)
    fitted = fit_random_intercept(y, _with_intercept(x), groups)
    # Where the groups differ, their number is what the spread is known from; else the number of points is.
    degrees = fitted.num_groups - 1 if fitted.group_variance > 0 else len(y) - target.shape[1]
    spread = np.sqrt(fitted.new_group_variance(target))
    return target @ fitted.coefficients, student_t_quantile(0.5 + confidence / 2.0, degrees) * spread


_MODELS: dict[ModelName, Callable[[Matrix, Vector, Groups, Matrix, float], tuple[Vector, Vector]]] = {
    "linear": _linear,
    "isotonic": _isotonic,
    "hierarchical": _hierarchical,
}


def _with_intercept(columns: Matrix) -> Matrix:
    return np.column_stack([np.ones(len(columns)), columns])
