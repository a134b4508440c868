"""Figures as files for papers: SVG with outlined text, light and dark, and PNG, drawn from the page's own numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib.figure
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from unveil_evalharness.plot import Figure, KeyEntry, Panel, Series
from unveil_evalharness.report.palette import (
    LIGHT,
    MARKERS,
    Theme,
    colour_of,
    darkened,
    new_figure,
    plain,
    plain_lines,
    png_bytes,
    svg_bytes,
)
from unveil_evalharness.report.scales import Scale, tick_text, x_ticks

__all__ = ["PaperFiles", "paper_files"]

_MANY_POINTS = 20
_LARGE = 10_000
_WIDTH = 300.0
_LINES: dict[str, Literal["-", ":", "--"]] = {"line": "-", "dotted": ":", "level": "--"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperFiles:
    """One figure as files."""

    svg: bytes
    svg_dark: bytes
    png: bytes
    """160 dots per inch, light."""


def paper_files(figure: Figure) -> PaperFiles:
    """Draws the figure once; equal figures give equal bytes."""
    drawn = _draw(figure, LIGHT)
    svg = svg_bytes(drawn)
    drawn.set_layout_engine("none")  # the layout of the SVG is kept: making it anew takes most of the time
    return PaperFiles(svg=svg, svg_dark=darkened(svg), png=png_bytes(drawn))


def _draw(figure: Figure, theme: Theme) -> matplotlib.figure.Figure:
    count = len(figure.panels)
    drawn, axes = new_figure(theme, count, num_columns=3, panel_size=(6.6, 4.0) if count == 1 else (4.5, 3.6))
    for panel, pair in zip(figure.panels, axes, strict=True):
        _panel(pair, panel, theme)
    if figure.key:
        handles = [_handle(entry, theme) for entry in figure.key]
        longest = max(len(entry.label) for entry in figure.key)
        columns = max(1, min(len(handles), int(drawn.get_figwidth() / (0.075 * longest + 0.55))))
        drawn.legend(
            handles=handles,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=8.5,
            labelcolor=theme.ink,
        )
    return drawn


def _panel(axes: Axes, panel: Panel, theme: Theme) -> None:
    num_points = sum(len(series.x) for series in panel.series if series.style == "points")
    if panel.x_log and any(value > 0 for series in panel.series for value in series.x):
        axes.set_xscale("log")
    for series in panel.series:
        if series.style != "level":
            _series(axes, series, theme, 7.0 if num_points <= _MANY_POINTS else 5.0)
    axes.autoscale_view()
    for series in panel.series:
        if series.style == "level":
            axes.axhline(series.y[0], color=colour_of(theme, series.colour), linestyle="--", linewidth=1.0, zorder=1.5)
    if panel.y_zero:
        axes.axhline(0.0, color=theme.muted, linewidth=1.0, zorder=1.5)
    lines = [line for line in (panel.title, panel.subtitle) if line]
    axes.set_title(plain_lines(lines), color=theme.ink, fontsize=9, loc="left", wrap=True)
    axes.set_xlabel(plain(panel.x_label), color=theme.ink)
    axes.set_ylabel(plain(panel.y_label), color=theme.ink)
    if panel.x_log:
        values = [at for series in panel.series for at in series.x if at > 0]
        axes.xaxis.set_major_locator(FixedLocator(x_ticks(panel, Scale.around(values, 0.0, _WIDTH, log=True))))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, value)))
    if max(map(abs, axes.get_ylim())) >= _LARGE:  # written short, as on the page, instead of times a power of ten
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value, value)))


def _series(axes: Axes, series: Series, theme: Theme, size: float) -> None:
    colour = colour_of(theme, series.colour)
    if series.style == "band":
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.18, linewidth=0)
    elif series.style in ("line", "dotted"):
        axes.plot(series.x, series.y, color=colour, linewidth=1.6, linestyle=_LINES[series.style])
    else:
        if series.low:
            kept = [i for i in range(len(series.x)) if math.isfinite(series.low[i]) and math.isfinite(series.high[i])]
            axes.vlines(
                [series.x[i] for i in kept],
                [series.low[i] for i in kept],
                [series.high[i] for i in kept],
                color=colour,
                linewidth=0.9,
            )
        axes.add_line(_markers(theme, series, series.x, series.y, size))


def _markers(
    theme: Theme, look: Series | KeyEntry, x: Sequence[float], y: Sequence[float], size: float = 6.0, label: str = ""
) -> Line2D:
    """Markers without a line between them."""
    colour = colour_of(theme, look.colour)
    return Line2D(
        x,
        y,
        linestyle="none",
        marker=MARKERS[look.marker % len(MARKERS)],
        markersize=size,
        markerfacecolor=theme.paper if look.hollow else colour,
        markeredgecolor=colour if look.hollow else theme.paper,
        markeredgewidth=1.6 if look.hollow else 0.6,
        label=label,
    )


def _handle(entry: KeyEntry, theme: Theme) -> Line2D | Patch:
    colour, label = colour_of(theme, entry.colour), plain(entry.label)
    if entry.style == "points":
        return _markers(theme, entry, (), (), label=label)
    if entry.style == "band":
        return Patch(color=colour, alpha=0.18, label=label, linewidth=0)
    return Line2D([], [], color=colour, linestyle=_LINES[entry.style], label=label)
