"""A metric over the number of different training images: does more data help, and from where on?"""

from collections.abc import Sequence

from unveil_evalharness.plot import Figure, KeyEntry, Panel, Series, colour_names
from unveil_evalharness.report.figures.runs import RunPoint, bars_note, count_text, value_ends

__all__ = ["data_size_figure"]

_MAX_PANELS = 6


def data_size_figure(points: Sequence[RunPoint], *, name: str, metric: str) -> Figure | None:
    """A panel per training length and a line per model, or one panel with a line per length where there is one model.

    None when no model was trained on two amounts of data.
    """
    models = list(dict.fromkeys(point.model for point in points))
    lengths = sorted({point.steps for point in points})
    if len({point.num_images for point in points}) < 2:
        return None
    several = len(models) > 1 and len(lengths) <= _MAX_PANELS
    groups: dict[str, list[RunPoint]] = {}
    if several:
        for length in lengths:
            groups[f"{count_text(length)} steps"] = [point for point in points if point.steps == length]
    else:
        groups[""] = list(points)
    kinds = models if several else [f"{count_text(length)} steps" for length in lengths]
    colours = dict(zip(kinds, colour_names(len(kinds)), strict=True))
    panels = tuple(
        Panel(
            title=title,
            x_label="different training images",
            y_label=metric,
            series=tuple(_lines(members, colours, metric, by_model=several)),
            x_log=True,
        )
        for title, members in groups.items()
    )
    if not any(series.style == "line" for panel in panels for series in panel.series):
        return None
    key = [KeyEntry(label=kind, colour=colour, style="line") for kind, colour in colours.items()]
    if any(point.overfitted for point in points):
        key.append(KeyEntry(label="over-fitted", hollow=True))
    return Figure(
        name=name,
        title=f"{metric} over the number of training images",
        alternative=f"{metric} against data size for {', '.join(kinds)}",
        panels=panels,
        key=tuple(key),
        notes=bars_note(panels),
    )


def _lines(points: Sequence[RunPoint], colours: dict[str, str], metric: str, *, by_model: bool) -> list[Series]:
    groups: dict[tuple[str, str], list[RunPoint]] = {}
    for point in points:
        kind = point.model if by_model else f"{count_text(point.steps)} steps"
        groups.setdefault((kind, point.model), []).append(point)
    series = []
    for (kind, _), found in groups.items():
        members = sorted(found, key=lambda point: point.num_images)
        if len({point.num_images for point in members}) == len(members) > 1:
            xs, ys = tuple(float(p.num_images) for p in members), tuple(p.value or 0.0 for p in members)
            series.append(Series(style="line", x=xs, y=ys, colour=colours[kind]))
        for mark in (False, True):
            chosen = [point for point in members if point.overfitted == mark]
            if chosen:
                series.append(
                    Series(
                        style="points",
                        x=tuple(float(point.num_images) for point in chosen),
                        y=tuple(point.value or 0.0 for point in chosen),
                        low=value_ends(chosen, -1),
                        high=value_ends(chosen, 1),
                        tips=tuple(point.tip(metric) for point in chosen),
                        colour=colours[kind],
                        hollow=mark,
                    )
                )
    return series
