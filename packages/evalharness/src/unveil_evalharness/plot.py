"""Figures as data: what the page draws with hover, and the files for papers draw without, from the same numbers."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["MAX_POINTS", "Figure", "KeyEntry", "Panel", "Series", "Style", "colour_names"]

Style = Literal["points", "line", "dotted", "band", "level"]
"""``points`` are markers, ``line`` and ``dotted`` join them, ``band`` fills between `low` and `high`, ``level`` is a
horizontal line at the first `y`, over the whole width."""

MAX_POINTS = 2_000
"""Points of one panel that are drawn; of more, evenly spaced ones, and a note says so."""

NUM_SERIES_COLOURS = 6
NUM_SCALE_COLOURS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Points that share a look."""

    style: Style
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    """Lower edge of a band, or lower end of each point's vertical error bar; empty where there is none."""
    high: tuple[float, ...] = ()
    tips: tuple[str, ...] = ()
    """What hovering over each point shows; lines are separated by line breaks."""
    colour: str = "muted"
    """A name from `colour_names`, ``muted`` or ``ink``."""
    marker: int = 0
    """Index of a marker shape."""
    hollow: bool = False
    """Drawn as an outline: the mark of an over-fitted run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyEntry:
    """One line of a figure's key."""

    label: str
    colour: str = "muted"
    style: Style = "points"
    marker: int = 0
    hollow: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_log: bool = False
    y_zero: bool = False
    """Draw a line at zero (residuals)."""
    subtitle: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """Panels with one key."""

    name: str
    """File name without its ending: letters, digits and underscores."""
    title: str
    alternative: str
    """What the figure shows, for those who do not see it."""
    panels: tuple[Panel, ...]
    key: tuple[KeyEntry, ...] = ()
    notes: tuple[str, ...] = ()


def colour_names(count: int) -> tuple[str, ...]:
    """Names of `count` colours: of the palette while they last, else steps of a scale from dark to light."""
    if count <= NUM_SERIES_COLOURS:
        return tuple(f"c{index}" for index in range(count))
    last = NUM_SCALE_COLOURS - 1
    return tuple(f"q{round(index * last / (count - 1))}" for index in range(count))
