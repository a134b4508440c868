"""Figures of the forecasts: losses with the law's bands, images needed, and a forecast among the known runs."""

from collections.abc import Sequence

import numpy as np

from unveil_evalharness.plot import Figure, KeyEntry, Panel, Series, colour_names
from unveil_evalharness.predict.boundary import boundary
from unveil_evalharness.predict.forecast import Forecast
from unveil_evalharness.predict.known import KnownRuns, Query
from unveil_evalharness.predict.law import Law

__all__ = ["boundary_figure", "forecast_figure", "law_figure"]

_NUM_LENGTHS = 25
_NUM_BOUNDARY_LENGTHS = 12


def law_figure(known: KnownRuns, law: Law, resampled: Sequence[Law], *, level: float) -> Figure:
    """One panel per model: measured losses, the law's curve for each number of images, and its band."""
    models = list(dict.fromkeys(run.model for run in known.runs))
    sizes = sorted({run.images for run in known.runs})
    colours = dict(zip(sizes, colour_names(len(sizes)), strict=True))
    lengths = np.geomspace(min(r.steps for r in known.runs), max(r.steps for r in known.runs), _NUM_LENGTHS)
    panels = []
    for model in models:
        members = [run for run in known.runs if run.model == model]
        series: list[Series] = []
        for images in sorted({run.images for run in members}):
            points = [run for run in members if run.images == images]
            series += _curve(law, resampled, points, lengths, colour=colours[images], level=level)
            for rises in (False, True):
                members_of = [run for run in points if run.rises is rises]
                series.append(_points(members_of, colours[images], sizes.index(images), hollow=rises))
        panels.append(Panel(title=model, x_label="steps", y_label="validation loss", series=tuple(series), x_log=True))
    return Figure(
        name="scaling_law",
        title="Validation loss by the scaling law of parameters, images and steps",
        alternative=f"Measured and fitted validation losses of {len(known)} runs of {', '.join(models)} against steps.",
        panels=tuple(panels),
        key=tuple(
            KeyEntry(label=f"{images:,.0f} images", colour=colours[images], marker=sizes.index(images))
            for images in sizes
        ),
        notes=(
            f"Bands hold {level:.0%} of the laws fitted to resampled pairs of model and data; hollow marks are runs "
            "whose loss has been lower before.",
            f"Root mean square of the residuals: {law.residual_deviation:.4f}.",
        ),
    )


def _curve(
    law: Law, resampled: Sequence[Law], points: Sequence[Query], lengths: np.ndarray, *, colour: str, level: float
) -> list[Series]:
    params, images = np.full(len(lengths), points[0].params), np.full(len(lengths), points[0].images)
    band = np.array([one(params, lengths, images) for one in resampled])
    low, high = np.percentile(band, (50 * (1 - level), 50 * (1 + level)), axis=0)
    steps = tuple(map(float, lengths))
    return [
        Series(style="band", x=steps, low=tuple(map(float, low)), high=tuple(map(float, high)), colour=colour),
        Series(style="line", x=steps, y=tuple(map(float, law(params, lengths, images))), colour=colour),
    ]


def _points(points: Sequence[Query], colour: str, marker: int, *, hollow: bool) -> Series:
    return Series(
        style="points",
        x=tuple(float(run.steps) for run in points),
        y=tuple(run.loss for run in points),
        tips=tuple(f"{run.label}\nloss {run.loss:.4f}" for run in points),
        colour=colour,
        marker=marker,
        hollow=hollow,
    )


def boundary_figure(known: KnownRuns, law: Law, resampled: Sequence[Law], *, level: float) -> Figure:
    """Images below which the last doubling of the length raises the loss, by length, one line per model."""
    models = {run.model: run.params for run in sorted(known.runs, key=lambda run: run.params)}
    lengths = np.geomspace(min(r.steps for r in known.runs), max(r.steps for r in known.runs), _NUM_BOUNDARY_LENGTHS)
    images = [run.images for run in known.runs]
    series: list[Series] = []
    ends = []
    for (model, params), colour in zip(models.items(), colour_names(len(models)), strict=True):
        line = boundary(
            law,
            list(resampled),
            params=params,
            steps=lengths,
            lowest=min(images) / 10,
            highest=max(images) * 10,
            level=level,
        )
        held = np.isfinite(line.low)
        known_ends = np.isfinite(line.images)
        series.append(
            Series(
                style="band",
                x=tuple(map(float, lengths[held])),
                low=tuple(map(float, line.low[held])),
                high=tuple(map(float, line.high[held])),
                colour=colour,
            )
        )
        series.append(
            Series(
                style="line",
                x=tuple(map(float, lengths[known_ends])),
                y=tuple(map(float, line.images[known_ends])),
                colour=colour,
            )
        )
        ends.append(f"{model} {line.images[-1]:,.0f}" if known_ends[-1] else f"{model} not known")
    return Figure(
        name="overfitting_boundary",
        title="Images below which the last doubling of the length raises the validation loss",
        alternative=f"Images needed at {lengths[-1]:,.0f} steps: {'; '.join(ends)}.",
        panels=(Panel(title="", x_label="steps", y_label="different images", series=tuple(series), x_log=True),),
        key=tuple(
            KeyEntry(label=model, colour=colour, style="line")
            for model, colour in zip(models, colour_names(len(models)), strict=True)
        ),
        notes=(f"At {lengths[-1]:,.0f} steps: {'; '.join(ends)}. Bands: {level:.0%} of the resampled laws.",),
    )


def forecast_figure(known: KnownRuns, one: Forecast) -> Figure:
    """Loss against value of the known runs, those whose loss rose hollow, and the forecast with its interval."""
    series = []
    for rises in (False, True):
        chosen = [index for index, run in enumerate(known.runs) if run.rises is rises]
        series.append(
            Series(
                style="points",
                x=tuple(known.runs[index].loss for index in chosen),
                y=tuple(float(known.values[index]) for index in chosen),
                tips=tuple(f"{known.runs[index].label}\n{known.values[index]:.3f}" for index in chosen),
                colour="c0",
                hollow=rises,
            )
        )
    series.append(
        Series(
            style="points",
            x=(one.loss,),
            y=(one.value,),
            low=(one.low,),
            high=(one.high,),
            tips=(f"{one.label}\n{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]",),
            colour="c1",
            marker=3,
        )
    )
    panel = Panel(title="", x_label="validation loss", y_label=f"{one.metric} ({one.unit})", series=tuple(series))
    return Figure(
        name="forecast",
        title=f"Forecast for {one.label}",
        alternative=f"{one.metric} of {one.label}: {one.value:.3f}, between {one.low:.3f} and {one.high:.3f}.",
        panels=(panel,),
        key=(
            KeyEntry(label="known, loss at its lowest", colour="c0"),
            KeyEntry(label="known, loss has been lower", colour="c0", hollow=True),
            KeyEntry(label=f"forecast, {one.calibration.level:.0%} interval", colour="c1", marker=3),
        ),
    )
