"""The figures of evaluated checkpoints; one figure never holds two passports."""

import math
import re
from collections.abc import Sequence

from unveil_backbones.manifest import Manifest

from unveil_evalharness.correlate.correlation import Correlation, Stratum
from unveil_evalharness.correlate.join import Point
from unveil_evalharness.correlate.words import interval_text, number
from unveil_evalharness.plot import Figure, Panel
from unveil_evalharness.report.figures.curves import MAX_CURVES, length_figure, training_panel
from unveil_evalharness.report.figures.data_size import data_size_figure
from unveil_evalharness.report.figures.runs import Look, RunPoint, bars_note, overfitted
from unveil_evalharness.report.figures.scatter import baseline_entry, residual_panel, scatter_panel
from unveil_evalharness.report.lookup import Lookup, column_title

__all__ = ["OVERFITTED_NOTE", "printed_figures", "run_points", "study_figures"]

OVERFITTED_NOTE = (
    "Over-fitted: a shorter run of the same model on as many images has a lower validation loss, or the run's own loss "
    "ends more than two standard errors above its lowest."
)
_FEWEST_POINTS = 2
_RISE = 2.0


def study_figures(lookup: Lookup, correlation: Correlation) -> tuple[Figure, ...]:
    """Per passport: loss during training and over length; per task and passport: scatter, residuals, data size."""
    groups = _by_passport(lookup)
    figures: list[Figure] = []
    looks: dict[str, Look] = {}
    for passport, members in groups.items():
        points = run_points(members)
        looks[passport] = Look.of(points)
        runs = list(zip(points, [manifest for _, manifest in members], strict=True))
        figures += _loss_figures(passport, runs, looks[passport], figures)
    strata: dict[tuple[str, str], list[Stratum]] = {}
    for stratum in correlation.strata:
        if len(stratum.points) >= _FEWEST_POINTS:
            strata.setdefault((stratum.column.task, stratum.passport), []).append(stratum)
    columns = [stratum.column for stratum in correlation.strata]
    for (task, passport), found in strata.items():
        marked = {sha: point for (sha, _), point in zip(groups[passport], run_points(groups[passport]), strict=True)}
        titles = [column_title(stratum.column, columns) for stratum in found]
        figures += _task_figures(task, found, titles, marked, looks[passport], figures)
    return tuple(figures)


def run_points(members: Sequence[tuple[str, Manifest]]) -> list[RunPoint]:
    """What the figures show of checkpoints (SHA-256 and manifest) with a validation loss."""
    pairs = [
        (f"{manifest.encoder.name}\0{manifest.unique_samples}\0{manifest.seed}", manifest.step, manifest.val[-1].loss)
        for _, manifest in members
    ]
    return [
        RunPoint(
            label=manifest.label,
            model=manifest.encoder.name,
            data=f"{manifest.unique_samples:,} images",
            num_images=manifest.unique_samples,
            steps=manifest.step,
            loss=manifest.val[-1].loss,
            loss_standard_error=manifest.val[-1].standard_error,
            overfitted=mark or _turned_up(manifest),
        )
        for (_, manifest), mark in zip(members, overfitted(pairs), strict=True)
    ]


def _turned_up(manifest: Manifest) -> bool:
    lowest, final = min(manifest.val, key=lambda point: point.loss), manifest.val[-1]
    return final.loss - lowest.loss > _RISE * math.hypot(final.standard_error, lowest.standard_error)


def _by_passport(lookup: Lookup) -> dict[str, list[tuple[str, Manifest]]]:
    """Checkpoints with a validation curve by passport hash; a curve without passport stands alone."""
    groups: dict[str, list[tuple[str, Manifest]]] = {}
    for sha256 in lookup.checkpoints:
        manifest = lookup.manifest(sha256)
        if manifest is not None and manifest.val and math.isfinite(manifest.val[-1].loss):
            group = f"none {sha256}" if manifest.passport is None else manifest.passport.hash
            groups.setdefault(group, []).append((sha256, manifest))
    return groups


def _loss_figures(
    passport: str, runs: Sequence[tuple[RunPoint, Manifest]], look: Look, taken: Sequence[Figure]
) -> list[Figure]:
    objective = runs[0][1].objective
    loss_name = f"{objective} validation loss"
    panels = [
        training_panel(model, [run for run in runs if run[0].model == model], look, loss_name)
        for model in dict.fromkeys(point.model for point, _ in runs)
    ]
    points = [point for point, _ in runs]
    dotted = any(series.style == "dotted" for panel in panels for series in panel.series)
    notes = ["Bands: one standard error over validation images." + (" Dotted: training loss." if dotted else "")]
    if any(point.overfitted for point in points):
        notes.append(OVERFITTED_NOTE)
    if len(runs) > MAX_CURVES:
        notes.append(f"Of {len(runs):,} checkpoints, evenly spaced ones are drawn.")
    title = f"Validation loss during training ({objective}, passport {passport[:6]})"
    shown = "; ".join(f"{point.label} ends at {number(point.loss, 4)}" for point in points[:MAX_CURVES])
    figures = [
        Figure(
            name=_file_name(f"validation_loss_{objective}", taken),
            title=title,
            alternative=f"{title}, one line per checkpoint: {shown}",
            panels=tuple(panels),
            key=look.key(points, lines=True),
            notes=tuple(notes),
        )
    ]
    by_length = length_figure(
        points, look, name=_file_name(f"loss_over_length_{objective}", [*taken, *figures]), loss_name=loss_name
    )
    return figures if by_length is None else [*figures, by_length]


def _task_figures(
    task: str,
    strata: Sequence[Stratum],
    titles: Sequence[str],
    marked: dict[str, RunPoint],
    look: Look,
    taken: Sequence[Figure],
) -> list[Figure]:
    objective = str(strata[0].passport_fields["objective"])
    loss_name = f"final validation loss ({objective})"
    figures: list[Figure] = []
    panels: list[Panel] = []
    residuals: list[Panel] = []
    sizes: list[tuple[str, list[RunPoint]]] = []
    for stratum, title in zip(strata, titles, strict=True):
        points = [_measured(marked[point.checkpoint_sha256], point) for point in stratum.points]
        metric = stratum.column.metric.partition(".")[2] or stratum.column.metric
        panels.append(
            scatter_panel(
                points, look, title=title, loss_name=loss_name, metric=metric, subtitle=printed_figures(stratum)
            )
        )
        rest = residual_panel(points, look, title=title, loss_name=loss_name, metric=metric)
        residuals += [] if rest is None or not stratum.column.main else [rest]
        sizes += [(title, points)] if stratum.column.main else []
    every = list(marked.values())
    key = look.key(every)
    notes = (OVERFITTED_NOTE,) if any(point.overfitted for point in every) else ()

    def add(name: str, heading: str, alternative: str, drawn: Sequence[Panel]) -> None:
        figures.append(
            Figure(
                name=_file_name(name, [*taken, *figures]),
                title=heading,
                alternative=alternative,
                panels=tuple(drawn),
                key=(*key, *baseline_entry(drawn)),
                notes=(*bars_note(drawn), *notes),
            )
        )

    words = " ".join(stratum.answer for stratum in strata)
    add(f"{task}_{objective}", f"Final {objective} loss against {task}", words, panels)
    if residuals:
        heading = f"What the {objective} loss leaves unexplained of {task}"
        add(f"{task}_{objective}_residuals", heading, f"Residuals of a line in the loss, {task}", residuals)
    for title, points in sizes:
        name = _file_name(f"{task}_{objective}_data_size", [*taken, *figures])
        figure = data_size_figure(points, name=name, metric=title)
        figures += [] if figure is None else [figure]
    return figures


def _measured(run: RunPoint, point: Point) -> RunPoint:
    return RunPoint(
        label=point.label,
        model=run.model,
        data=run.data,
        num_images=run.num_images,
        steps=run.steps,
        loss=point.loss,
        loss_standard_error=point.loss_standard_error,
        value=point.value,
        value_standard_error=point.value_standard_error,
        baseline=point.baseline,
        overfitted=run.overfitted,
    )


def printed_figures(stratum: Stratum) -> str:
    """What is printed above a panel: the coefficients with their intervals and n."""
    n = f"n = {len(stratum.points)}" + (", limited" if stratum.column.limit is not None else "")
    if stratum.statistics is None:
        reason = "refused" if stratum.refusal is None else stratum.refusal.reason.replace("_", " ")
        return f"no correlation: {reason}; {n}"
    spearman, pearson = stratum.statistics.spearman, stratum.statistics.pearson
    return (
        f"Spearman {number(spearman.value)} {interval_text(spearman.best)}, "
        f"Pearson {number(pearson.value)} {interval_text(pearson.best)}, {n}"
    )


def _file_name(text: str, taken: Sequence[Figure]) -> str:
    """`text` with letters, digits and underscores only, numbered when an earlier figure has the name."""
    plain_text = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
    names = {figure.name for figure in taken}
    candidates = [plain_text, *(f"{plain_text}_{count}" for count in range(2, len(names) + 2))]
    return next(name for name in candidates if name not in names)
