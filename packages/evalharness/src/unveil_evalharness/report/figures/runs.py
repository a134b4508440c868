"""What a figure shows of one run, whether it was evaluated here or published, and how runs are told apart.

In every figure of a report the same colour is the same training data and the same marker the same model (the same
training length where there is one model only); an outlined marker is a run that over-fitted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from unveil_evalharness.correlate.words import number
from unveil_evalharness.plot import KeyEntry, Panel, Series, colour_names
from unveil_evalharness.report.palette import MARKERS

__all__ = ["Look", "RunPoint", "bars_note", "by_data", "count_text", "dots", "overfitted", "value_ends"]

_MANY_IN_KEY = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPoint:
    """One run: its final validation loss, and one metric where it was measured."""

    label: str
    model: str
    data: str
    """What it was trained on, in words."""
    num_images: int
    """Different training images."""
    steps: int
    loss: float
    loss_standard_error: float | None = None
    value: float | None = None
    value_standard_error: float | None = None
    baseline: float | None = None
    overfitted: bool = False

    def tip(self, metric: str = "", digits: int = 3) -> str:
        """The run in words, one fact a line."""
        lines = [self.label, f"validation loss {_with_error(self.loss, self.loss_standard_error, 4)}"]
        if metric and self.value is not None:
            lines.append(f"{metric} {_with_error(self.value, self.value_standard_error, digits)}")
        lines.append(f"{self.data}, {count_text(self.steps)} steps")
        return "\n".join([*lines, *(["over-fitted"] if self.overfitted else [])])


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Colours by data and markers by model or length, the same for all figures of one set of runs."""

    colour: dict[str, str]
    marker: dict[str, int]
    by_model: bool
    """Whether markers tell models; else they tell training lengths."""

    @classmethod
    def of(cls, points: Sequence[RunPoint]) -> "Look":
        """Chooses them; with more kinds than markers all markers are equal."""
        data = by_data(points)
        models = sorted({point.model for point in points})
        lengths = sorted({point.steps for point in points})
        by_model = len(models) > 1
        kinds = models if by_model else [str(length) for length in lengths]
        marked = len(kinds) <= len(MARKERS)
        return cls(
            colour=dict(zip(data, colour_names(len(data)), strict=True)),
            marker={kind: index if marked else 0 for index, kind in enumerate(kinds)},
            by_model=by_model,
        )

    def marker_of(self, point: RunPoint) -> int:
        """Index of the point's marker."""
        return self.marker[point.model if self.by_model else str(point.steps)]

    def key(self, points: Sequence[RunPoint], *, lines: bool = False, markers: bool = True) -> tuple[KeyEntry, ...]:
        """What colours, markers and outlines mean, as far as `points` use them.

        Args:
            points: The runs that are drawn.
            lines: Whether the colours are those of lines.
            markers: Whether the figure tells runs apart by markers.
        """
        data = by_data(points)
        shown = data if len(data) <= _MANY_IN_KEY else [data[0], data[len(data) // 2], data[-1]]
        entries = [
            KeyEntry(label=name, colour=self.colour[name], style="line" if lines else "points") for name in shown
        ]
        kinds = dict.fromkeys(point.model if self.by_model else str(point.steps) for point in points)
        if markers and 1 < len(self.marker) <= len(MARKERS):
            entries += [
                KeyEntry(label=kind if self.by_model else f"{count_text(int(kind))} steps", marker=self.marker[kind])
                for kind in self.marker
                if kind in kinds
            ]
        if any(point.overfitted for point in points):
            entries.append(KeyEntry(label="over-fitted", hollow=True))
        return tuple(entries)


def by_data(points: Iterable[RunPoint]) -> list[str]:
    """Names of the data sets in `points`, the smallest first."""
    sizes = {point.data: point.num_images for point in points}
    return sorted(sizes, key=lambda name: (sizes[name], name))


def dots(points: Sequence[RunPoint], look: Look, metric: str = "") -> list[Series]:
    """The points at (loss, value), one series per look; with `metric` empty the tips leave the value out."""
    groups: dict[tuple[str, int, bool], list[RunPoint]] = {}
    for point in points:
        groups.setdefault((look.colour[point.data], look.marker_of(point), point.overfitted), []).append(point)
    return [
        Series(
            style="points",
            x=tuple(point.loss for point in members),
            y=tuple(point.value or 0.0 for point in members),
            low=value_ends(members, -1),
            high=value_ends(members, 1),
            tips=tuple(point.tip(metric) for point in members),
            colour=colour,
            marker=marker,
            hollow=hollow,
        )
        for (colour, marker, hollow), members in groups.items()
    ]


def value_ends(points: Sequence[RunPoint], sign: int) -> tuple[float, ...]:
    """Each value with `sign` times its standard error; empty where none of them has one."""
    if all(point.value_standard_error is None for point in points):
        return ()
    return tuple((point.value or 0.0) + sign * (point.value_standard_error or 0.0) for point in points)


def bars_note(panels: Sequence[Panel]) -> tuple[str, ...]:
    """What the bars are, if a panel has some."""
    drawn = any(series.low for panel in panels for series in panel.series if series.style == "points")
    return ("Bars: one standard error.",) if drawn else ()


def overfitted(runs: Sequence[tuple[str, int, float]]) -> list[bool]:
    """Whether each run is longer than, and has a higher loss than, another run of its group.

    Args:
        runs: group (model and data), length and validation loss of each run.
    """
    marks = [False] * len(runs)
    groups: dict[str, list[int]] = {}
    for index, (group, _, _) in enumerate(runs):
        groups.setdefault(group, []).append(index)
    for members in groups.values():
        lowest, pending = float("inf"), float("inf")
        ordered = sorted(members, key=lambda index: runs[index][1])
        for previous, index in pairwise([ordered[0], *ordered]):
            if runs[index][1] > runs[previous][1]:  # equal lengths are not longer than each other
                lowest = min(lowest, pending)
            marks[index] = runs[index][2] > lowest
            pending = min(pending, runs[index][2])
    return marks


def count_text(count: int) -> str:
    """``840``, ``125k``, ``1.28M``."""
    for size, unit in ((10**6, "M"), (10**3, "k")):
        if count >= 10 * size or (count >= size and count % (size // 100) == 0) or (count >= size and unit == "M"):
            return f"{count / size:.4g}{unit}" if unit == "k" else f"{count / size:.3g}{unit}"
    return str(count)


def _with_error(value: float, error: float | None, digits: int) -> str:
    return number(value, digits) if error is None else f"{number(value, digits)} ± {number(error, digits)}"
