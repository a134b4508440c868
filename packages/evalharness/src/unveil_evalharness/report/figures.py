"""Figures of the report: validation-loss curves, and the final loss against each metric.

One figure never holds two passports. Within a passport, colour is the number of unique training images and marker the
training length, in every figure alike.
"""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter
from unveil_backbones.manifest import Manifest

from unveil_evalharness.correlate.correlation import Correlation, Stratum
from unveil_evalharness.correlate.join import Point
from unveil_evalharness.correlate.words import interval, number
from unveil_evalharness.report.lookup import Lookup, column_title
from unveil_evalharness.report.palette import (
    DARK,
    LIGHT,
    MARKERS,
    Theme,
    colours,
    new_figure,
    plain,
    plain_lines,
    png_bytes,
    svg_bytes,
)

__all__ = ["Picture", "draw_all"]

_MIN_POINTS_TO_DRAW = 2
_MANY_POINTS = 20
_MANY_SIZES = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One figure in the forms the report needs."""

    name: str
    """File name without its ending."""
    title: str
    alternative: str
    """What the figure shows, for those who do not see it."""
    svg: bytes
    svg_dark: bytes
    png: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Key:
    """Colours and markers of all figures of one report."""

    theme: Theme
    colour: dict[int, str]
    marker: dict[int, str]

    @classmethod
    def of(cls, manifests: Sequence[Manifest], theme: Theme) -> "_Key":
        sizes = sorted({manifest.unique_samples for manifest in manifests})
        steps = sorted({manifest.step for manifest in manifests})
        return cls(
            theme=theme,
            colour=dict(zip(sizes, colours(theme, len(sizes)), strict=True)),
            marker=dict(zip(steps, MARKERS if len(steps) <= len(MARKERS) else repeat("o"), strict=False)),
        )


def draw_all(lookup: Lookup, correlation: Correlation) -> list[Picture]:
    """The loss curves of each passport, then one scatter figure per task and passport with two points to compare."""
    groups = _by_passport(lookup)
    keys = {group: (_Key.of(members, LIGHT), _Key.of(members, DARK)) for group, members in groups.items()}
    pictures: list[Picture] = []
    for group, members in groups.items():
        light, dark = (_curves(members, key) for key in keys[group])
        title = f"Validation loss during training ({members[0].objective}, passport {group[:6]})"
        alternative = f"{title}, one line per checkpoint: " + "; ".join(manifest.label for manifest in members)
        name = _file_name(f"validation_loss_{members[0].objective}", pictures)
        pictures.append(_picture(name, title, alternative, light, dark))
    drawn: dict[tuple[str, str], list[Stratum]] = {}
    for stratum in correlation.strata:
        if len(stratum.points) >= _MIN_POINTS_TO_DRAW:
            drawn.setdefault((stratum.column.task, stratum.passport), []).append(stratum)
    columns = [stratum.column for stratum in correlation.strata]
    for (task, group), strata in drawn.items():
        titles = [column_title(stratum.column, columns) for stratum in strata]
        light, dark = (_scatter(strata, titles, key) for key in keys[group])
        objective = strata[0].passport_fields["objective"]
        name = _file_name(f"{task}_{objective}", pictures)
        alternative = " ".join(stratum.answer for stratum in strata)
        pictures.append(_picture(name, f"Final {objective} loss against {task}", alternative, light, dark))
    return pictures


def _file_name(text: str, taken: Sequence[Picture]) -> str:
    """`text` with letters, digits and underscores only, numbered when an earlier figure has the name."""
    plain_text = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
    names = {picture.name for picture in taken}
    candidates = [plain_text, *(f"{plain_text}_{number}" for number in range(2, len(names) + 2))]
    return next(name for name in candidates if name not in names)


def _picture(name: str, title: str, alternative: str, light: Figure, dark: Figure) -> Picture:
    return Picture(
        name=name,
        title=title,
        alternative=alternative,
        svg=svg_bytes(light),
        svg_dark=svg_bytes(dark),
        png=png_bytes(light),
    )


def _by_passport(lookup: Lookup) -> dict[str, list[Manifest]]:
    """Manifests with a validation curve by passport hash; a curve without passport stands alone."""
    groups: dict[str, list[Manifest]] = {}
    for sha256 in lookup.checkpoints:
        manifest = lookup.manifest(sha256)
        if manifest is not None and manifest.val:
            group = f"none {sha256}" if manifest.passport is None else manifest.passport.hash
            groups.setdefault(group, []).append(manifest)
    return groups


def _curves(manifests: Sequence[Manifest], key: _Key) -> Figure:
    figure, (panel,) = new_figure(key.theme, 1, num_columns=1, panel_size=(8.4, 3.9))
    for manifest in manifests:
        _curve(panel, manifest, key)
    panel.set_xlabel("training step", color=key.theme.ink)
    panel.set_ylabel(plain(f"{manifests[0].objective} validation loss"), color=key.theme.ink)
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    extra = [Line2D([], [], color=key.theme.muted, label="validation ± standard error")]
    if any(point.train_loss is not None for manifest in manifests for point in manifest.val):
        extra.append(Line2D([], [], color=key.theme.muted, linestyle=":", label="training"))
    _legend(figure, [(manifest.unique_samples, manifest.step) for manifest in manifests], key, extra=extra, lines=True)
    return figure


def _curve(panel: Axes, manifest: Manifest, key: _Key) -> None:
    """One validation curve with its standard-error band, its training loss dotted, its end marked."""
    colour = key.colour[manifest.unique_samples]
    steps = [point.step for point in manifest.val]
    losses = [point.loss for point in manifest.val]
    low = [point.loss - point.standard_error for point in manifest.val]
    high = [point.loss + point.standard_error for point in manifest.val]
    panel.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    panel.plot(steps, losses, color=colour, linewidth=1.6)
    trained = [(point.step, point.train_loss) for point in manifest.val if point.train_loss is not None]
    if trained:
        panel.plot(*zip(*trained, strict=True), color=colour, linewidth=1.0, linestyle=":")
    panel.plot(
        steps[-1], losses[-1], marker=key.marker[manifest.step], color=colour, markersize=7,
        markeredgecolor=key.theme.paper, linestyle="none",
    )  # fmt: skip


def _scatter(strata: Sequence[Stratum], titles: Sequence[str], key: _Key) -> Figure:
    figure, panels = new_figure(key.theme, len(strata), num_columns=3, panel_size=(4.7, 3.6))
    with_baseline = False
    for panel, stratum, title in zip(panels, strata, titles, strict=True):
        for point in stratum.points:
            panel.errorbar(
                point.loss, point.value, xerr=point.loss_standard_error, yerr=point.value_standard_error,
                color=key.colour[point.unique_samples], marker=key.marker[point.step],
                markersize=7 if len(stratum.points) <= _MANY_POINTS else 5,
                markeredgecolor=key.theme.paper, markeredgewidth=0.6, elinewidth=0.9,
            )  # fmt: skip
        baseline = _mean_baseline(stratum.points)
        if baseline is not None and _near(baseline, panel.get_ylim()):
            panel.axhline(baseline, color=key.theme.muted, linestyle="--", linewidth=1.0, zorder=1.5)
            with_baseline = True
        lines = [title, *_printed_figures(stratum, baseline)]
        panel.set_title(plain_lines(lines), color=key.theme.ink, fontsize=9, loc="left")
        panel.set_xlabel(plain(f"final validation loss ({stratum.passport_fields['objective']})"), color=key.theme.ink)
        panel.set_ylabel(plain(stratum.column.metric.partition(".")[2] or stratum.column.metric), color=key.theme.ink)
    points = [point for stratum in strata for point in stratum.points]
    extra = [Line2D([], [], color=key.theme.muted, linestyle="--", label="trivial baseline")] if with_baseline else []
    _legend(figure, [(point.unique_samples, point.step) for point in points], key, extra=extra)
    return figure


def _mean_baseline(points: Sequence[Point]) -> float | None:
    baselines = [point.baseline for point in points if point.baseline is not None]
    return statistics.fmean(baselines) if baselines else None


def _near(value: float, limits: tuple[float, float]) -> bool:
    """Whether a line at `value` leaves the points between `limits` at least half of the height."""
    low, high = limits
    return bool(low - 0.9 * (high - low) <= value <= high + 0.9 * (high - low))


def _printed_figures(stratum: Stratum, baseline: float | None) -> list[str]:
    """What is printed above a panel: the coefficients with their intervals and n, and the trivial baseline."""
    n = f"n = {len(stratum.points)}" + (", limited" if stratum.column.limit is not None else "")
    trivial = "" if baseline is None else f", trivial baseline {number(baseline, 3)}"
    if stratum.statistics is None:
        reason = "" if stratum.refusal is None else stratum.refusal.reason.replace("_", " ")
        return [f"no correlation: {reason}", n + trivial]
    spearman, pearson = stratum.statistics.spearman, stratum.statistics.pearson
    return [
        f"Spearman {number(spearman.value)} {interval(spearman)}, Pearson {number(pearson.value)} {interval(pearson)}",
        n + trivial,
    ]


def _legend(
    figure: Figure,
    sizes_and_steps: Sequence[tuple[int, int]],
    key: _Key,
    *,
    extra: Sequence[Line2D],
    lines: bool = False,
) -> None:
    """Below the panels: colour for unique images, marker for steps, then what else the figure draws."""
    sizes, steps = (sorted(set(values)) for values in zip(*sizes_and_steps, strict=True))
    handles = [
        Line2D(
            [],
            [],
            color=key.colour[size],
            marker="" if lines else "o",
            linestyle="-" if lines else "none",
            label=f"{size:,} images",
        )
        for size in (sizes if len(sizes) <= _MANY_SIZES else (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    ]
    if len(steps) <= len(MARKERS):  # with more lengths than markers the marker means nothing
        handles += [
            Line2D([], [], color=key.theme.muted, marker=key.marker[step], linestyle="none", label=f"{step:,} steps")
            for step in steps
        ]
    handles += extra
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (0.075 * longest + 0.55))))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=8.5,
        labelcolor=key.theme.ink,
    )
