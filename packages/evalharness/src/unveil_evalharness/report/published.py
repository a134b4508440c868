"""The whole report of a published set: what a paper's table says, without a checkpoint."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unveil_evalharness.correlate.correlation import Correlation, Stratum, correlate_points
from unveil_evalharness.correlate.load import load
from unveil_evalharness.correlate.table import Roles
from unveil_evalharness.errors import ResultsError
from unveil_evalharness.plot import Figure
from unveil_evalharness.predict.known import KnownRuns, known_from_table
from unveil_evalharness.published import PUBLISHED, read_published
from unveil_evalharness.report.content import Answer, Content, Section
from unveil_evalharness.report.figures.curves import length_figure
from unveil_evalharness.report.figures.data_size import data_size_figure
from unveil_evalharness.report.figures.runs import Look, RunPoint, count_text
from unveil_evalharness.report.figures.scatter import residual_panel, scatter_panel
from unveil_evalharness.report.figures.study import printed_figures
from unveil_evalharness.report.machine import frame_csv
from unveil_evalharness.report.sections.forecasts import forecast_section
from unveil_evalharness.report.sections.headline import stratum_answer
from unveil_evalharness.report.sections.studies import correlation_section
from unveil_evalharness.report.tables import Cell, Table
from unveil_evalharness.report.write import Format, Report, write_content

if TYPE_CHECKING:
    import polars

__all__ = ["make_published_report", "published_content"]

_MAX_ANSWERS = 24
_OVERFITTED_NOTE = "Over-fitted: a shorter run of the same model on the same data has a lower validation loss."


def make_published_report(name: str, destination: Path, *, formats: Sequence[Format], figures: bool = True) -> Report:
    """Writes the report of a published set.

    Raises:
        UsageError: no set is called so.
        OutputError: the destination cannot be written.
    """
    table = read_published(name)
    source = load((), published=name, roles=Roles(x=""))
    correlation = correlate_points(source.points, outputs=source.outputs)
    content = published_content(name, table, correlation)
    extra = {"published": name, "correlation": json.loads(correlation.to_json())}
    return write_content(
        content, destination, formats=formats, figures=figures, csv=lambda: frame_csv(table), extra=extra
    )


def published_content(name: str, table: "polars.DataFrame", correlation: Correlation) -> Content:
    """Answers, figures and tables of a published set."""
    figures: list[Figure] = []
    for stratum in correlation.strata:
        figures += _figures(stratum, first=not figures)
    sections = (
        Section(key="figures", title="Figures", figures=tuple(figures)),
        correlation_section(correlation),
        _forecasts(name, table, correlation),
        _provenance(name, table),
    )
    told = [stratum_answer(stratum.column.metric, stratum, noun="runs") for stratum in correlation.strata]
    return Content(
        title=f"Published results: {name}",
        answers=(*told[:_MAX_ANSWERS], Answer(task="source", text=f"{PUBLISHED[name]}.")),
        overview=_overview(table),
        sections=tuple(section for section in sections if not section.is_empty),
    )


def run_points(stratum: Stratum) -> list[RunPoint]:
    """The runs of one metric as figures show them."""
    return [
        RunPoint(
            label=point.label,
            model=point.model,
            data=point.data,
            num_images=point.unique_samples,
            steps=point.step,
            loss=point.loss,
            value=point.value,
            overfitted=bool(point.overfitted),
        )
        for point in stratum.points
    ]


def _forecasts(name: str, table: "polars.DataFrame", correlation: Correlation) -> Section:
    """Forecasts from losses; a set without losses has none."""
    sets: list[KnownRuns] = []
    for stratum in correlation.strata:
        try:
            unit = stratum.column.unit or "percent"
            sets.append(known_from_table(table, metric=stratum.column.metric, unit=unit, origin=name))
        except ResultsError:
            continue  # the set holds no losses: nothing to forecast from, which its table shows
    return forecast_section(sets)


def _figures(stratum: Stratum, *, first: bool) -> list[Figure]:
    points = run_points(stratum)
    look = Look.of(points)
    metric, x = stratum.column.metric, stratum.column.x
    stem = re.sub(r"[^A-Za-z0-9]+", "_", metric)
    subtitle = printed_figures(stratum)
    scatter = scatter_panel(points, look, title="", loss_name=x, metric=metric, subtitle=subtitle)
    rest = residual_panel(points, look, title="", loss_name=x, metric=metric)
    notes = (_OVERFITTED_NOTE,) if any(point.overfitted for point in points) else ()
    found: list[Figure | None] = [
        Figure(
            name=f"{stem}_scatter",
            title=f"{metric} against {x}",
            alternative=stratum.answer,
            panels=(scatter,),
            key=look.key(points),
            notes=notes,
        )
    ]
    if rest is not None:
        title = f"What {x} leaves unexplained of {metric}"
        words = f"Residuals of a line, {len(points)} runs"
        found.append(
            Figure(name=f"{stem}_residuals", title=title, alternative=words, panels=(rest,), key=look.key(points))
        )
    if all(point.steps > 0 for point in points):
        found += [
            length_figure(points, look, name="loss_over_length", loss_name=x) if first else None,
            data_size_figure(points, name=f"{stem}_data_size", metric=metric),
        ]
    return [figure for figure in found if figure is not None]


def _overview(table: "polars.DataFrame") -> Table:
    rows = []
    metrics = table["metric"].unique(maintain_order=True).to_list()
    runs = table.select("run", "model", "data", "num_images", "steps", "loss", "overfitted").unique(maintain_order=True)
    values = {(row["run"], row["metric"]): row["value"] for row in table.iter_rows(named=True)}
    for run in runs.iter_rows(named=True):
        measured = [values.get((run["run"], metric)) for metric in metrics]
        rows.append(
            (
                Cell(text=run["run"]),
                Cell(text=run["model"] or "–"),
                Cell(text=run["data"] or "–"),
                Cell(text="yes" if run["overfitted"] else "–" if run["overfitted"] is None else "no"),
                _number(run["num_images"], whole=True),
                _number(run["steps"], whole=True),
                _number(run["loss"], digits=4),
                *(_number(value, digits=2) for value in measured),
            )
        )
    header = ("run", "model", "data", "over-fitted", "images", "steps", "validation loss", *metrics)
    return Table(title="Published runs", header=header, rows=tuple(rows), num_text_columns=4)


def _number(value: float | int | None, *, digits: int = 0, whole: bool = False) -> Cell:
    if value is None:
        return Cell(text="–")
    return Cell(text=count_text(int(value)) if whole else f"{value:.{digits}f}", value=float(value))


def _provenance(name: str, table: "polars.DataFrame") -> Section:
    sources = table["table"].drop_nulls().unique(maintain_order=True).to_list()
    facts = [("set", name), ("source", PUBLISHED[name]), ("tables", ", ".join(sources)), ("rows", str(len(table)))]
    rows = tuple((Cell(text=what), Cell(text=value)) for what, value in facts)
    table_ = Table(title="Source", header=("what", "value"), rows=rows, num_text_columns=2)
    return Section(key="provenance", title="Provenance", folded=(table_,))
