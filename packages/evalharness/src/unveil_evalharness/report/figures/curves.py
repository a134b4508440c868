"""Validation loss over training: inside one run, and over runs of different lengths, one line per amount of data."""

from collections.abc import Sequence

from unveil_backbones.manifest import Manifest

from unveil_evalharness.correlate.words import number
from unveil_evalharness.plot import Figure, KeyEntry, Panel, Series
from unveil_evalharness.report.figures.runs import Look, RunPoint, by_data, count_text

__all__ = ["MAX_CURVES", "length_figure", "training_panel"]

MAX_CURVES = 60
"""Curves of one panel that can be told apart, generously; of more, evenly spaced ones are drawn."""


def training_panel(title: str, runs: Sequence[tuple[RunPoint, Manifest]], look: Look, loss_name: str) -> Panel:
    """The validation loss of each run during training with its standard error, its training loss dotted."""
    series: list[Series] = []
    for run, manifest in runs[:: -(-len(runs) // MAX_CURVES)]:
        series += _curve(run, manifest, look)
    return Panel(title=title, x_label="training step", y_label=loss_name, series=tuple(series))


def _curve(run: RunPoint, manifest: Manifest, look: Look) -> list[Series]:
    colour = look.colour[run.data]
    steps = tuple(float(point.step) for point in manifest.val)
    losses = tuple(point.loss for point in manifest.val)
    low = tuple(point.loss - point.standard_error for point in manifest.val)
    high = tuple(point.loss + point.standard_error for point in manifest.val)
    trained = [(float(point.step), point.train_loss) for point in manifest.val if point.train_loss is not None]
    tips = tuple(
        f"{run.label}\nstep {point.step:,}\nvalidation loss {number(point.loss, 4)} ± {number(point.standard_error, 4)}"
        + ("" if point.train_loss is None else f"\ntraining loss {number(point.train_loss, 4)}")
        for point in manifest.val
    )
    dotted = (
        [Series(style="dotted", x=tuple(at for at, _ in trained), y=tuple(y for _, y in trained), colour=colour)]
        if trained
        else []
    )
    return [
        Series(style="band", x=steps, low=low, high=high, colour=colour),
        *dotted,
        Series(style="line", x=steps, y=losses, colour=colour),
        Series(
            style="points",
            x=steps,
            y=losses,
            tips=tips,
            colour=colour,
            marker=look.marker_of(run),
            hollow=run.overfitted,
        ),
    ]


def length_figure(points: Sequence[RunPoint], look: Look, *, name: str, loss_name: str) -> Figure | None:
    """Final loss over training length: a panel per model, a line per data set; None without two lengths to join."""
    panels = []
    for model in dict.fromkeys(point.model for point in points):
        own = [point for point in points if point.model == model]
        series: list[Series] = []
        for data in by_data(own):
            members = sorted((point for point in own if point.data == data), key=lambda point: point.steps)
            series += _joined(members, look)
        if any(item.style == "line" for item in series):
            title = f"{model}"
            panels.append(
                Panel(title=title, x_label="training steps", y_label=loss_name, series=tuple(series), x_log=True)
            )
    if not panels:
        return None
    key = [entry for entry in look.key(points, lines=True, markers=False) if not entry.hollow]
    hollow = [KeyEntry(label="over-fitted", hollow=True)] if any(point.overfitted for point in points) else []
    return Figure(
        name=name,
        title="Final validation loss over training length, one line per amount of data",
        alternative="One line per data set: "
        + "; ".join(f"{point.label} {number(point.loss, 4)}" for point in points[:MAX_CURVES]),
        panels=tuple(panels),
        key=(*key, *hollow),
        notes=("Over-fitted: a shorter run of the same model on the same data has a lower validation loss.",)
        if hollow
        else (),
    )


def _joined(members: Sequence[RunPoint], look: Look) -> list[Series]:
    colour = look.colour[members[0].data]
    series = []
    if len({point.steps for point in members}) > 1:
        xs, ys = tuple(float(point.steps) for point in members), tuple(point.loss for point in members)
        series.append(Series(style="line", x=xs, y=ys, colour=colour))
    for mark in (False, True):
        chosen = [point for point in members if point.overfitted == mark]
        if chosen:
            series.append(
                Series(
                    style="points",
                    x=tuple(float(point.steps) for point in chosen),
                    y=tuple(point.loss for point in chosen),
                    tips=tuple(
                        f"{point.label}\nvalidation loss {number(point.loss, 4)}\n{count_text(point.steps)} steps"
                        for point in chosen
                    ),
                    colour=colour,
                    hollow=mark,
                )
            )
    return series
