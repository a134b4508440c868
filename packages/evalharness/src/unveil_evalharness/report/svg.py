"""Panels as inline SVG whose colours follow the page's theme and whose points tell what they are when hovered over."""

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

from unveil_evalharness.plot import MAX_POINTS, Figure, KeyEntry, Panel, Series
from unveil_evalharness.report.scales import Scale, tick_text, x_ticks

__all__ = ["figure_html", "whole_words"]

_HEIGHT = 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 12.0, 12.0, 46.0
_NARROW, _WIDE = 430.0, 480.0
_RADIUS = 4.6


def figure_html(figure: Figure) -> str:
    """The figure as a ``<figure>``: its panels, its key and its notes; every word is escaped."""
    width = _WIDE if len(figure.panels) == 1 else _NARROW
    panels = "".join(_panel(panel, width, figure.alternative) for panel in figure.panels)
    key = "".join(f"<li>{_swatch(entry)}{escape(entry.label)}</li>" for entry in figure.key)
    notes = [*figure.notes]
    if any(len(_drawable(panel)) > MAX_POINTS for panel in figure.panels):
        notes.append(f"Of more than {MAX_POINTS:,} points in a panel, evenly spaced ones are drawn.")
    wide = ' class="wide"' if len(figure.panels) > 1 else ""
    return (
        f'<figure id="figure-{escape(figure.name)}"{wide}><figcaption>{escape(figure.title)}</figcaption>'
        f'<div class="panels">{panels}</div>'
        + (f'<ul class="key">{key}</ul>' if key else "")
        + "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
        + "</figure>"
    )


def whole_words(text: str) -> str:
    """A sentence, escaped; ``n = 6`` stays on one line."""
    return escape(text).replace("n = ", "n&nbsp;=&nbsp;")


def _panel(panel: Panel, width: float, alternative: str) -> str:
    points = _drawable(panel)
    heights = [value for series in panel.series for value in (*series.y, *series.low, *series.high)]
    heights += [0.0] if panel.y_zero else []
    x = Scale.around([at for at, _ in points], _LEFT, width - _RIGHT, log=panel.x_log)
    y = Scale.around(heights, _HEIGHT - _BOTTOM, _TOP)
    kept = max(1, math.ceil(len(points) / MAX_POINTS))
    body = [_grid(panel, x, y, width)]
    # Lines below points, so that no marker is crossed out.
    order = {"band": 0, "level": 1, "line": 2, "dotted": 2, "points": 3}
    for series in sorted(panel.series, key=lambda series: order[series.style]):
        body += [_series(series, x, y, kept)]
    subtitle = f'<p class="under">{whole_words(panel.subtitle)}</p>' if panel.subtitle else ""
    label = f"{panel.title}. {alternative}" if panel.title else alternative
    return (
        f'<div class="panel"><h4>{escape(panel.title)}</h4>{subtitle}<svg class="plot" viewBox="0 0 {width:g} '
        f'{_HEIGHT:g}" role="img" tabindex="0" aria-label="{escape(label)}">{"".join(body)}</svg></div>'
    )


def _drawable(panel: Panel) -> list[tuple[float, float]]:
    return [
        (at, value)
        for series in panel.series
        if series.style != "level"
        for at, value in zip(series.x, series.y or series.low, strict=True)
        if math.isfinite(at) and math.isfinite(value)
    ]


def _grid(panel: Panel, x: Scale, y: Scale, width: float) -> str:
    bottom, right = _HEIGHT - _BOTTOM, width - _RIGHT
    parts = []
    for ticks, scale, horizontal in ((y.ticks(5), y, True), (x_ticks(panel, x), x, False)):
        step = min((b - a for a, b in pairwise(ticks)), default=1.0)
        for tick in ticks:
            at, words = scale(tick), escape(tick_text(tick, tick if scale.log else step))
            if horizontal:
                parts.append(f'<path class="grid" d="M{_LEFT:.1f} {at:.1f}H{right:.1f}"/>')
                parts.append(f'<text class="tick end" x="{_LEFT - 6:.1f}" y="{at + 4:.1f}">{words}</text>')
            else:
                parts.append(f'<path class="grid" d="M{at:.1f} {_TOP:.1f}V{bottom:.1f}"/>')
                parts.append(f'<text class="tick middle" x="{at:.1f}" y="{bottom + 16:.1f}">{words}</text>')
    if panel.y_zero and y.holds(0.0):
        parts.append(f'<path class="zero" d="M{_LEFT:.1f} {y(0.0):.1f}H{right:.1f}"/>')
    middle = (_LEFT + right) / 2
    parts.append(f'<path class="axis" d="M{_LEFT:.1f} {_TOP:.1f}V{bottom:.1f}H{right:.1f}"/>')
    parts.append(
        f'<text class="label middle" x="{middle:.1f}" y="{_HEIGHT - 8:.1f}">{escape(panel.x_label)}</text>'
        f'<text class="label middle" transform="translate(14 {(_TOP + bottom) / 2:.1f}) rotate(-90)">'
        f"{escape(panel.y_label)}</text>"
    )
    return "".join(parts)


def _series(series: Series, x: Scale, y: Scale, every: int) -> str:
    if series.style == "level":
        return f'<path class="level {series.colour}" d="M{x.start:.1f} {y(series.y[0]):.1f}H{x.end:.1f}"/>'
    if series.style == "band":
        edge = [*zip(series.x, series.high, strict=True), *reversed([*zip(series.x, series.low, strict=True)])]
        return f'<path class="band {series.colour}" d="M{_path(edge, x, y)}Z"/>'
    if series.style in ("line", "dotted"):
        joined = _path([*zip(series.x, series.y, strict=True)], x, y)
        return f'<path class="{series.style} {series.colour}" d="M{joined}"/>' if joined else ""
    return "".join(_dot(series, index, x, y) for index in range(0, len(series.x), every))


def _path(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
    return "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in points if math.isfinite(at) and math.isfinite(value))


def _dot(series: Series, index: int, x: Scale, y: Scale) -> str:
    if not (math.isfinite(series.x[index]) and math.isfinite(series.y[index])):
        return ""
    at, height = x(series.x[index]), y(series.y[index])
    bar = ""
    if series.low and math.isfinite(series.low[index]) and math.isfinite(series.high[index]):
        low, high = y(series.low[index]), y(series.high[index])
        bar = f'<path class="bar {series.colour}" d="M{at:.1f} {low:.1f}V{high:.1f}"/>'
    tip = f' data-tip="{escape(series.tips[index])}" data-x="{at:.1f}" data-y="{height:.1f}"' if series.tips else ""
    kind = f"dot {series.colour}{' hollow' if series.hollow else ''}"
    return f'{bar}<path class="{kind}" d="{_shape(series.marker, at, height)}"{tip}/>'


def _shape(marker: int, x: float, y: float) -> str:
    """The outline of marker number `marker`, in the order of the palette's ``MARKERS``."""
    r = _RADIUS
    if marker == 0:
        return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r:.1f} 0a{r} {r} 0 1 0 {-2 * r:.1f} 0Z"
    if marker == 5:
        t = r / 2.4
        return (
            f"M{x - t:.1f} {y - r:.1f}h{2 * t:.1f}v{r - t:.1f}h{r - t:.1f}v{2 * t:.1f}h{t - r:.1f}v{r - t:.1f}"
            f"h{-2 * t:.1f}v{t - r:.1f}h{t - r:.1f}v{-2 * t:.1f}h{r - t:.1f}Z"
        )
    corners = {
        1: ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        2: ((0, -1.2), (1.1, 0.9), (-1.1, 0.9)),
        3: ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
        4: ((0, 1.2), (1.1, -0.9), (-1.1, -0.9)),
        6: ((-1.1, -0.5), (0, -1.2), (1.1, -0.5), (0.7, 1.0), (-0.7, 1.0)),
    }[marker % 7 or 1]
    return "M" + "L".join(f"{x + r * dx:.1f} {y + r * dy:.1f}" for dx, dy in corners) + "Z"


def _swatch(entry: KeyEntry) -> str:
    drawn = {
        "points": f'<path class="dot {entry.colour}{" hollow" if entry.hollow else ""}" '
        f'd="{_shape(entry.marker, 11.0, 7.0)}"/>',
        "line": f'<path class="line {entry.colour}" d="M1 7H21"/>',
        "dotted": f'<path class="dotted {entry.colour}" d="M1 7H21"/>',
        "level": f'<path class="level {entry.colour}" d="M1 7H21"/>',
        "band": f'<path class="band {entry.colour}" d="M1 2H21V12H1Z"/>',
    }[entry.style]
    return f'<svg class="swatch" viewBox="0 0 22 14" aria-hidden="true">{drawn}</svg>'
