"""Points as columns of numbers, turned so that a lower x and a higher y are better."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unveil_evalharness.correlate.join import Column, Point
from unveil_evalharness.statistics.least_squares import indicators

__all__ = ["Columns", "columns_of", "labels_of"]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Groups = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """What the study reads of its points; n points. Columns that a source does not know are None."""

    x: Vector
    """[n], lower is better."""
    y: Vector
    """[n], higher is better."""
    loss: Vector
    """[n], x as it was given."""
    value: Vector
    """[n], y as it was given."""
    model: Groups | None
    """[n]."""
    cluster: Groups | None
    """[n]; None when every point is its own."""
    setting: Groups | None
    """Runs that differ in length only, [n]; with `length`."""
    length: Vector | None
    """[n]."""
    control_names: tuple[str, ...]
    controls: Matrix | None
    """Numbers as they are, words as indicators, [n, k]."""


def labels_of(points: Sequence[Point], name: Callable[[Point], str]) -> Groups | None:
    """Groups as integers from 0, [n]; None when a point has no such name or all have the same."""
    names = [name(point) for point in points]
    if not all(names) or len(set(names)) < 2:
        return None
    return np.unique(np.array(names), return_inverse=True)[1]


def columns_of(column: Column, points: Sequence[Point]) -> Columns:
    """The columns of a stratum."""
    x = np.array([point.loss for point in points], dtype=np.float64)
    y = np.array([point.value for point in points], dtype=np.float64)
    cluster = labels_of(points, lambda point: point.cluster)
    setting = labels_of(points, lambda point: point.setting)
    lengths = np.array([point.step for point in points], dtype=np.float64)
    if setting is None and points and all(point.setting for point in points):
        setting = np.zeros(len(points), dtype=np.int64)
    names, controls = _controls(points)
    return Columns(
        x=x if column.lower_x_is_better else -x,
        y=y if column.higher_is_better else -y,
        loss=x,
        value=y,
        model=labels_of(points, lambda point: point.model),
        cluster=None if cluster is None or len(np.unique(cluster)) == len(points) else cluster,
        setting=setting if (lengths > 0).all() else None,
        length=lengths if (lengths > 0).all() else None,
        control_names=names,
        controls=controls,
    )


def _controls(points: Sequence[Point]) -> tuple[tuple[str, ...], Matrix | None]:
    """Controls that all points have and that are not the same everywhere."""
    names: list[str] = []
    columns: list[Matrix] = []
    for name in points[0].controls if points else ():
        values = [point.controls.get(name) for point in points]
        if any(value is None for value in values) or len(set(values)) < 2:
            continue
        if all(isinstance(value, int | float) for value in values):
            columns.append(np.array(values, dtype=np.float64)[:, None])
        else:
            columns.append(indicators(np.unique([str(value) for value in values], return_inverse=True)[1]))
        names.append(name)
    return tuple(names), np.column_stack(columns) if columns else None
