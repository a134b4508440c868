"""The whole report of a published set: what a paper's table says, without a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import polars

from unveil_evalharness.published import PUBLISHED, read_published
from unveil_evalharness.report.content import Answer, Content, Section
from unveil_evalharness.report.figures.curves import length_figure
from unveil_evalharness.report.figures.data_size import data_size_figure
from unveil_evalharness.report.figures.runs import Look, RunPoint, count_text
from unveil_evalharness.report.figures.scatter import residual_panel, scatter_panel
from unveil_evalharness.report.plot import Figure
from unveil_evalharness.report.tables import Cell, Table
from unveil_evalharness.report.write import Format, Report, write_content

__all__ = ["make_published_report", "published_content"]

_OVERFITTED_NOTE = "Over-fitted: a shorter run of the same model on the same data has a lower validation loss."


def make_published_report(name: str, destination: Path, *, formats: Sequence[Format], figures: bool = True) -> Report:
    """Writes the report of a published set.

    Raises:
        UsageError: no set is called so.
        OutputError: the destination cannot be written.
    """
    table = read_published(name)
    content = published_content(name, table)
    return write_content(
        content, destination, formats=formats, figures=figures, csv=table.write_csv, extra={"published": name}
    )


def published_content(name: str, table: polars.DataFrame) -> Content:
    """Answers, figures and tables of a published set."""
    metrics = table["metric"].unique(maintain_order=True).to_list()
    figures: list[Figure] = []
    for metric in metrics:
        points = run_points(table.filter(polars.col("metric") == metric))
        if points:
            figures += _figures(points, metric, first=not figures)
    sections = (
        Section(key="figures", title="Figures", figures=tuple(figures)),
        _provenance(name, table),
    )
    return Content(
        title=f"Published results: {name}",
        answers=(Answer(task=name, text=f"{PUBLISHED[name]}."),),
        overview=_overview(table),
        sections=tuple(section for section in sections if not section.is_empty),
    )


def run_points(table: polars.DataFrame) -> list[RunPoint]:
    """The runs of one metric that have a loss and a length."""
    return [
        RunPoint(
            label=row["run"],
            model=row["model"],
            data=row["data"],
            num_images=row["num_images"] or 0,
            steps=row["steps"],
            loss=row["loss"],
            value=row["value"],
            overfitted=bool(row["overfitted"]),
        )
        for row in table.iter_rows(named=True)
        if row["loss"] is not None and row["steps"] is not None and row["value"] is not None
    ]


def _figures(points: Sequence[RunPoint], metric: str, *, first: bool) -> list[Figure]:
    look = Look.of(points)
    loss_name = "validation loss"
    stem = metric.replace(".", "_").replace("@", "_")
    scatter = scatter_panel(points, look, title="", loss_name=loss_name, metric=metric)
    rest = residual_panel(points, look, title="", loss_name=loss_name, metric=metric)
    found: list[Figure | None] = [
        Figure(
            name=f"{stem}_scatter",
            title=f"Validation loss against {metric}",
            alternative=f"{len(points)} runs by loss and {metric}",
            panels=(scatter,),
            key=look.key(points),
            notes=(_OVERFITTED_NOTE,),
        ),
        None
        if rest is None
        else Figure(
            name=f"{stem}_residuals",
            title=f"What the loss leaves unexplained of {metric}",
            alternative=f"Residuals of a line in the loss, {len(points)} runs",
            panels=(rest,),
            key=look.key(points),
        ),
        length_figure(points, look, name="loss_over_length", loss_name=loss_name) if first else None,
        data_size_figure(points, name=f"{stem}_data_size", metric=metric),
    ]
    return [figure for figure in found if figure is not None]


def _overview(table: polars.DataFrame) -> Table:
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


def _provenance(name: str, table: polars.DataFrame) -> Section:
    sources = table["table"].drop_nulls().unique(maintain_order=True).to_list()
    facts = [("set", name), ("source", PUBLISHED[name]), ("tables", ", ".join(sources)), ("rows", str(len(table)))]
    rows = tuple((Cell(text=what), Cell(text=value)) for what, value in facts)
    table_ = Table(title="Source", header=("what", "value"), rows=rows, num_text_columns=2)
    return Section(key="provenance", title="Provenance", folded=(table_,))
