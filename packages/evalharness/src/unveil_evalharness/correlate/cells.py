"""One checkpoint's value of one metric, averaged over seeds: from result rows, or from a large file at once."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unveil_evalharness.frames import guarded
from unveil_evalharness.results import SCHEMA_VERSION, ResultRow

if TYPE_CHECKING:
    import polars

__all__ = ["Cell", "Column", "cells_of_rows", "column_of", "combine_seeds", "read_cells", "run_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """What two metric values must share before they may stand in one column."""

    task: str
    metric: str
    main: bool
    unit: str
    higher_is_better: bool
    protocol: str
    data_hash: str
    limit: int | None
    x: str = "validation loss"
    """What stands on the other axis."""
    lower_x_is_better: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One metric of one checkpoint."""

    column: Column
    sha256: str
    label: str
    checkpoint: str
    value: float
    """Mean over seeds; NaN where a seed has no finite value."""
    standard_error: float | None
    num_seeds: int
    seed_deviation: float | None
    """Standard deviation over seeds, where there are several."""
    baseline: float | None


def column_of(row: ResultRow) -> Column:
    """The column a row belongs to."""
    return Column(
        task=row.task,
        metric=row.metric,
        main=row.main,
        unit=row.unit,
        higher_is_better=row.higher_is_better,
        protocol=row.protocol,
        data_hash=row.data_hash,
        limit=row.limit,
    )


def run_of(row: ResultRow | Cell) -> str:
    """The run folder a checkpoint lies in (``<run>/checkpoints/step_*``), or the checkpoint itself."""
    folder, _, _ = row.checkpoint.rstrip("/").rpartition("/")
    run, _, name = folder.rpartition("/")
    return run if run and name == "checkpoints" else row.checkpoint


def combine_seeds(rows: Iterable[ResultRow]) -> tuple[float, float | None]:
    """Mean value over seeds and its standard error.

    Every seed is scored on the same evaluation items, so their sampling error does not average out over seeds. The
    standard error is therefore the larger of the mean sampling error and the error of the mean over seeds; None when
    neither is known.
    """
    measured = list(rows)
    values = [row.value for row in measured if row.value is not None]
    # Equal values are returned untouched: a mean could differ from them in the last bit and break a tie of ranks.
    mean = values[0] if min(values) == max(values) else statistics.fmean(values)
    errors = [row.standard_error for row in measured if row.standard_error is not None]
    candidates = [statistics.fmean(errors)] if errors else []
    if len(values) > 1:
        candidates.append(statistics.stdev(values) / math.sqrt(len(values)))
    return mean, max(candidates, default=None)


def cells_of_rows(rows: Sequence[ResultRow]) -> list[Cell]:
    """Cells of the finished rows, in order of first appearance."""
    groups: dict[tuple[Column, str], list[ResultRow]] = {}
    for row in rows:
        if row.status == "ok":
            groups.setdefault((column_of(row), row.checkpoint_sha256), []).append(row)
    return [_cell(column, members) for (column, _), members in groups.items()]


def _cell(column: Column, rows: list[ResultRow]) -> Cell:
    values = [math.nan if row.value is None else row.value for row in rows]
    finite = all(math.isfinite(value) for value in values)
    value, error = combine_seeds(rows) if finite else (math.nan, None)
    baselines = [row.baseline for row in rows if row.baseline is not None]
    return Cell(
        column=column,
        sha256=rows[0].checkpoint_sha256,
        label=rows[0].label,
        checkpoint=rows[0].checkpoint,
        value=value,
        standard_error=error,
        num_seeds=len({row.seed for row in rows}),
        seed_deviation=statistics.stdev(values) if finite and len(values) > 1 else None,
        baseline=statistics.fmean(baselines) if baselines else None,
    )


def read_cells(paths: Sequence[Path]) -> list[Cell] | None:
    """Cells of whole ``results.jsonl`` files without a Python object per row, as `cells_of_rows` of their latest rows.

    None when anything in a file is not as it should be; reading it row by row then names the row and what is wrong.
    """
    import polars as pl

    words = ("checkpoint", "checkpoint_sha256", "label", "task", "metric", "protocol", "status", "data_hash", "unit")
    kinds: dict[str, Any] = {
        **dict.fromkeys(words, pl.String),
        **dict.fromkeys(("schema_version", "seed", "limit", "repeat"), pl.Int64),
        **dict.fromkeys(("value", "baseline", "standard_error"), pl.Float64),
        **dict.fromkeys(("main", "higher_is_better"), pl.Boolean),
    }
    try:
        frame = guarded(lambda: pl.concat([pl.read_ndjson(path, schema=kinds) for path in paths]))
    except (OSError, pl.exceptions.PolarsError):
        return None
    needed = ("schema_version", "checkpoint", "checkpoint_sha256", "label", "task", "metric", "protocol", "status",
              "seed", "data_hash")  # fmt: skip
    if any(frame[name].null_count() for name in needed) or not (frame["schema_version"] == SCHEMA_VERSION).all():
        return None
    rows = frame.with_columns(
        pl.col("main").fill_null(value=False),
        pl.col("higher_is_better").fill_null(value=True),
        pl.col("unit").fill_null("fraction"),
        pl.col("repeat").fill_null(0),
    )
    return [_cell_of_record(record) for record in _combined(rows).iter_rows(named=True)]


def _combined(rows: "polars.DataFrame") -> "polars.DataFrame":
    """One record per column and checkpoint, of the last finished row of each measurement."""
    import polars as pl

    measurement = ["checkpoint_sha256", "task", "protocol", "metric", "seed", "limit", "data_hash"]
    finished = rows.filter((pl.col("status") == "ok") & (pl.col("repeat") == 0))
    latest = finished.unique(measurement, keep="last", maintain_order=True)
    column = ["task", "metric", "main", "unit", "higher_is_better", "protocol", "data_hash", "limit"]
    value = pl.col("value").fill_null(float("nan"))
    return latest.group_by([*column, "checkpoint_sha256"], maintain_order=True).agg(
        pl.col("label", "checkpoint").first(),
        mean=pl.when(value.min() == value.max()).then(value.first()).otherwise(value.mean()),
        deviation=value.std(),
        error=pl.col("standard_error").mean(),
        num_values=pl.len(),
        num_seeds=pl.col("seed").n_unique(),
        baseline=pl.col("baseline").mean(),
        is_finite=value.is_finite().all(),
    )


def _cell_of_record(record: dict[str, Any]) -> Cell:
    finite, several = record["is_finite"], record["num_values"] > 1
    candidates = [record["error"]] if record["error"] is not None else []
    if several and finite:
        candidates.append(record["deviation"] / math.sqrt(record["num_values"]))
    return Cell(
        column=Column(
            task=record["task"],
            metric=record["metric"],
            main=record["main"],
            unit=record["unit"],
            higher_is_better=record["higher_is_better"],
            protocol=record["protocol"],
            data_hash=record["data_hash"],
            limit=record["limit"],
        ),
        sha256=record["checkpoint_sha256"],
        label=record["label"],
        checkpoint=record["checkpoint"],
        value=record["mean"] if finite else math.nan,
        standard_error=max(candidates, default=None) if finite else None,
        num_seeds=record["num_seeds"],
        seed_deviation=record["deviation"] if several and finite else None,
        baseline=record["baseline"],
    )
