"""The tables of the report, as plain values that Markdown, HTML and the terminal render alike."""

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unveil_evalharness.certainty import ALIKE_NOTE, all_alike
from unveil_evalharness.correlate.correlation import Correlation
from unveil_evalharness.correlate.join import Column, combine_seeds
from unveil_evalharness.correlate.statistics import Estimate
from unveil_evalharness.correlate.words import beats_baseline, interval_text, number
from unveil_evalharness.report.lookup import Lookup, column_title, objective_title

__all__ = [
    "BASELINE_LABEL",
    "Cell",
    "Table",
    "correlation_table",
    "overview_table",
    "problem_table",
    "table_file",
    "task_table",
    "text_row",
]

BASELINE_LABEL = "trivial baseline"
WEAK_MARK = "†"
WEAK_NOTE = f"{WEAK_MARK} does not beat the trivial baseline by more than two standard errors."
ERROR_NOTE = "± is one standard error: over the evaluation items, or over seeds where that is larger."


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One cell: what is shown, and the exact number behind it."""

    text: str
    value: float | None = None
    weak: bool = False
    """The value does not beat the trivial baseline."""
    alike: bool = False
    """The standard error is 0 because every item came out alike."""
    shade: float | None = None
    """How dark the cell's ground is, from 0 to 1; None for none."""

    @property
    def shown(self) -> str:
        """The text with its mark."""
        return f"{self.text} {WEAK_MARK}" if self.weak else self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A titled table; the first `num_text_columns` columns hold words, the others numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    num_text_columns: int = 1
    notes: tuple[str, ...] = ()


def table_file(table: Table) -> str:
    """Where all rows of the table are kept when the page shows only the first, relative to the page."""
    return f"tables/{re.sub(r'[^A-Za-z0-9]+', '_', table.title).strip('_').lower()[:80]}.csv"


def text_row(*texts: str) -> tuple[Cell, ...]:
    """A row of words."""
    return tuple(Cell(text=text) for text in texts)


def overview_table(lookup: Lookup) -> Table:
    """One row per checkpoint: final validation loss and the main metric of every task; the baseline below."""
    columns = [column for column in lookup.columns if column.main]
    rows = [
        (Cell(text=lookup.labels[sha256]), _loss(lookup, sha256), *_measured(lookup, sha256, columns))
        for sha256 in lookup.checkpoints
    ]
    rows.append((Cell(text=BASELINE_LABEL), Cell(text=""), *(_baseline(lookup, column) for column in columns)))
    return Table(
        title="Results",
        header=("checkpoint", "validation loss", *(column_title(column, columns) for column in columns)),
        rows=tuple(rows),
        notes=_notes(rows, columns),
    )


def task_table(lookup: Lookup, task: str) -> Table:
    """Every metric of one task, one row per checkpoint that has a value."""
    columns = [column for column in lookup.columns if column.task == task]
    rows = []
    for sha256 in lookup.checkpoints:
        own = [row for row in lookup.by_task.get((sha256, task), ()) if row.status == "ok"]
        if own:
            seeds = ", ".join(str(seed) for seed in sorted({row.seed for row in own}))
            items = ", ".join(str(n) for n in sorted({row.n for row in own}))
            cells = _measured(lookup, sha256, columns)
            rows.append((Cell(text=lookup.labels[sha256]), Cell(text=seeds), Cell(text=items), *cells))
    blank = Cell(text="")
    rows.append((Cell(text=BASELINE_LABEL), blank, blank, *(_baseline(lookup, column) for column in columns)))
    titles = (column_title(column, columns).removeprefix(f"{task}.") for column in columns)
    return Table(
        title=task, header=("checkpoint", "seeds", "n", *titles), rows=tuple(rows), notes=_notes(rows, columns)
    )


def problem_table(lookup: Lookup) -> Table | None:
    """Failed and not applicable tasks with their reasons; None when every task has a value."""
    rows = [
        tuple(
            Cell(text=text)
            for text in (row.label, row.task, row.status.replace("_", " "), row.error or "no reason recorded")
        )
        for row in lookup.evidence.rows
        if row.status != "ok"
    ]
    if not rows:
        return None
    header = ("checkpoint", "task", "status", "reason")
    return Table(title="Failed and not applicable", header=header, rows=tuple(dict.fromkeys(rows)), num_text_columns=4)


def correlation_table(correlation: Correlation) -> Table:
    """Coefficients of every stratum, or the reason why there are none."""
    columns = [stratum.column for stratum in correlation.strata]
    rows = []
    for stratum in correlation.strata:
        name = Cell(text=column_title(stratum.column, columns))
        loss = Cell(text=objective_title(stratum, correlation.strata))
        n = Cell(text=str(len(stratum.points)), value=float(len(stratum.points)))
        if stratum.statistics is None:
            reason = "refused" if stratum.refusal is None else stratum.refusal.reason.replace("_", " ")
            rows.append((name, loss, n, Cell(text=reason), *[Cell(text="–")] * 4))
            continue
        values = stratum.statistics
        rows.append(
            (
                name,
                loss,
                n,
                _estimate(values.spearman),
                _estimate(values.pearson),
                _estimate(values.kendall),
                _estimate(values.slope, digits=3),
                Cell(text=f"{values.permutation_p_value:.2g}", value=values.permutation_p_value),
            )
        )
    level = f"{correlation.confidence:.0%}".replace("%", " %")
    measured = [stratum.statistics for stratum in correlation.strata if stratum.statistics is not None]
    grouped = any(one.num_groups is not None for one in measured)
    return Table(
        title="Validation loss against each metric",
        header=("metric", "loss", "n", "Spearman", "Pearson", "Kendall", "per +0.01 loss", "p"),
        rows=tuple(rows),
        num_text_columns=2,
        notes=(
            f"In brackets: {level} percentile-bootstrap intervals"
            + (", of whole groups where checkpoints are grouped" if grouped else " over checkpoints")
            + f", with seed {correlation.seed} and {correlation.num_resamples} resamples.",
            "Per +0.01 loss: change of the metric (least squares). p: how often a random order is as far from zero "
            "(two-sided permutation test of Spearman's coefficient).",
            *(f"Left out of {item.metric}: {item.label}: {item.reason}." for item in correlation.left_out),
        ),
    )


def _estimate(estimate: Estimate, digits: int = 2) -> Cell:
    return Cell(text=f"{number(estimate.value, digits)} {interval_text(estimate.best, digits)}", value=estimate.value)


def _loss(lookup: Lookup, sha256: str) -> Cell:
    manifest = lookup.manifest(sha256)
    if manifest is None or not manifest.val:
        return Cell(text="–")
    final = manifest.val[-1]
    return Cell(text=_with_error(final.loss, final.standard_error), value=final.loss)


def _measured(lookup: Lookup, sha256: str, columns: Sequence[Column]) -> list[Cell]:
    """One cell per column: the mean over seeds with its standard error, or why there is none."""
    cells = []
    for column in columns:
        rows = lookup.cells.get((sha256, column))
        if rows is None:
            statuses = {row.status for row in lookup.by_task.get((sha256, column.task), ())}
            cells.append(
                Cell(text="failed" if "failed" in statuses else "n/a" if "not_applicable" in statuses else "–")
            )
            continue
        if not any(row.n for row in rows):  # no image is part of it, as where no object is large
            cells.append(Cell(text="–"))
            continue
        value, error = combine_seeds(rows)
        baselines = [row.baseline for row in rows if row.baseline is not None]
        baseline = statistics.fmean(baselines) if baselines else None
        weak = not beats_baseline(value, baseline, error, higher_is_better=column.higher_is_better)
        alike = all_alike(value, error, column.unit)
        cells.append(Cell(text=_with_error(value, error), value=value, weak=weak, alike=alike))
    return cells


def _baseline(lookup: Lookup, column: Column) -> Cell:
    values = lookup.baselines(column)
    if not values:
        return Cell(text="–")
    low, high = min(values), max(values)
    if number(low, 3) == number(high, 3):
        return Cell(text=number(low, 3), value=low)
    return Cell(text=f"{number(low, 3)} to {number(high, 3)}")


def _with_error(value: float, standard_error: float | None) -> str:
    return number(value, 3) if standard_error is None else f"{number(value, 3)} ± {number(standard_error, 3)}"


def _notes(rows: Iterable[Sequence[Cell]], columns: Sequence[Column]) -> tuple[str, ...]:
    cells = [cell for row in rows for cell in row]
    notes = []
    if any("±" in cell.text for cell in cells):
        notes.append(ERROR_NOTE)
    if any(cell.alike for cell in cells):
        notes.append(ALIKE_NOTE)
    if any(cell.weak for cell in cells):
        notes.append(WEAK_NOTE)
    if any(cell.text == "n/a" for cell in cells):
        notes.append("n/a: the task does not apply to this checkpoint; the reasons are below.")
    if any(not column.higher_is_better for column in columns):
        names = ", ".join(dict.fromkeys(column.metric for column in columns if not column.higher_is_better))
        notes.append(f"Lower is better: {names}.")
    if any(column.limit is not None for column in columns):
        notes.append("Limited columns were measured with --limit: fit for a look, not for a comparison.")
    return tuple(notes)
