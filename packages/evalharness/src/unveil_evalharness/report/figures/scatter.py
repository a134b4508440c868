"""Validation loss against a metric, and what is left of the metric when a straight line in the loss is taken away."""

import statistics
from collections.abc import Sequence

import numpy as np

from unveil_evalharness.correlate.words import number
from unveil_evalharness.plot import KeyEntry, Panel, Series
from unveil_evalharness.report.figures.runs import Look, RunPoint, dots

__all__ = ["baseline_entry", "residual_panel", "scatter_panel"]

_FEWEST_TO_FIT = 3


def scatter_panel(
    points: Sequence[RunPoint], look: Look, *, title: str, loss_name: str, metric: str, subtitle: str = ""
) -> Panel:
    """One dot per run at its loss and value, with standard errors, and the trivial baseline where it is in sight."""
    series = dots(points, look, metric)
    baseline = _baseline(points)
    if baseline is not None and _in_sight(baseline, [value for item in series for value in item.y]):
        series.append(Series(style="level", y=(baseline,)))
    return Panel(title=title, x_label=loss_name, y_label=metric, series=tuple(series), subtitle=subtitle)


def residual_panel(points: Sequence[RunPoint], look: Look, *, title: str, loss_name: str, metric: str) -> Panel | None:
    """Value minus the least-squares line through all points, against the loss; None for fewer than 3 losses.

    A pattern here is what one line in the loss does not explain: another slope or offset of a model or data set.
    """
    if len({point.loss for point in points}) < _FEWEST_TO_FIT:
        return None
    losses = np.array([point.loss for point in points])
    values = np.array([point.value or 0.0 for point in points])
    centre = losses.mean()
    slope = float(((losses - centre) * (values - values.mean())).sum() / ((losses - centre) ** 2).sum())
    left = values - values.mean() - slope * (losses - centre)
    moved = [
        RunPoint(
            label=point.label,
            model=point.model,
            data=point.data,
            num_images=point.num_images,
            steps=point.steps,
            loss=point.loss,
            value=float(rest),
            overfitted=point.overfitted,
        )
        for point, rest in zip(points, left, strict=True)
    ]
    spread = f"standard deviation of the residuals {number(float(left.std(ddof=2)), 4)}"
    return Panel(
        title=title,
        x_label=loss_name,
        y_label=f"residual of {metric}",
        series=tuple(dots(moved, look, f"residual of {metric}")),
        y_zero=True,
        subtitle=f"line: {number(0.01 * slope, 4)} per +0.01 loss; {spread}",
    )


def baseline_entry(panels: Sequence[Panel]) -> tuple[KeyEntry, ...]:
    """The key's entry for the trivial baseline, if a panel has one."""
    drawn = any(series.style == "level" for panel in panels for series in panel.series)
    return (KeyEntry(label="trivial baseline", style="level"),) if drawn else ()


def _in_sight(baseline: float, values: Sequence[float]) -> bool:
    """Whether a line there leaves the points at least about half of the height."""
    low, high = min(values), max(values)
    return low - 0.9 * (high - low) <= baseline <= high + 0.9 * (high - low)


def _baseline(points: Sequence[RunPoint]) -> float | None:
    known = [point.baseline for point in points if point.baseline is not None]
    return statistics.fmean(known) if known else None
