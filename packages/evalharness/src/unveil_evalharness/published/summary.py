"""Reads ``summary.csv`` of ``pretrain sweep`` into the columns of the published sets."""

from pathlib import Path
from typing import TYPE_CHECKING

from unveil_evalharness.errors import ResultsError
from unveil_evalharness.frames import guarded
from unveil_evalharness.published.overfitting import mark_overfitting
from unveil_evalharness.published.reader import COLUMNS

if TYPE_CHECKING:
    import polars

__all__ = ["is_summary", "read_summary"]

_NEEDED = ("cell", "encoder", "fraction", "steps", "seed", "val_loss", "passport", "checkpoint_sha256")


def is_summary(frame: "polars.DataFrame") -> bool:
    """Whether a table has the columns of a sweep's summary."""
    return set(_NEEDED) <= set(frame.columns)


def read_summary(path: Path) -> "polars.DataFrame":
    """The finished cells of a sweep, one row each, without metrics: ``metric`` and ``value`` are null.

    Besides the columns of `COLUMNS` there are ``seed``, ``loss_min`` (lowest validation loss of the run),
    ``passport`` and ``checkpoint_sha256``, by which result rows name the checkpoint. Cells that have not finished,
    or have no loss, are left out.

    Raises:
        ResultsError: the file cannot be read or is not such a summary; names the missing column.
    """
    import polars as pl

    try:
        # As text: a hash of digits alone, or with one "e" among them, is no number.
        frame = guarded(lambda: pl.read_csv(path, infer_schema=False))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ResultsError(f"cannot read {path}: {error}") from error
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing:
        raise ResultsError(f"{path} has no column {missing[0]}; give the summary.csv that `pretrain sweep` writes")
    optional = {"epochs": pl.Float64, "unique_samples": pl.Int64, "val_loss_min": pl.Float64, "objective": pl.String}
    frame = frame.with_columns(
        pl.lit(None, dtype=kind).alias(name) for name, kind in optional.items() if name not in frame.columns
    )
    try:
        runs = _finished(frame)
    except pl.exceptions.PolarsError as error:
        raise ResultsError(f"{path} has a cell of another kind than its column: {error}; restore it") from error
    # A run over-fits against shorter runs of its own seed: another seed is another draw, not another length.
    alone = runs.with_columns(pair=pl.format("{} × {} × {}", "model", "data", "seed"))
    marked = mark_overfitting(alone).with_columns(pair=pl.format("{} × {}", "model", "data"))
    leading = list(COLUMNS)
    return marked.select(*leading, *(name for name in marked.columns if name not in leading))


def _finished(frame: "polars.DataFrame") -> "polars.DataFrame":
    """The cells with a loss and a checkpoint, in the types of the published sets."""
    import polars as pl

    return frame.filter(pl.col("val_loss").is_not_null() & (pl.col("checkpoint_sha256").is_not_null())).select(
        run=pl.col("cell"),
        model=pl.col("encoder").cast(pl.String),
        params=pl.lit(None, dtype=pl.Float64),
        data=pl.format("{} of the images", pl.col("fraction").cast(pl.Float64)),
        source=pl.lit("sweep"),
        fraction=pl.col("fraction").cast(pl.Float64),
        num_images=pl.col("unique_samples").cast(pl.Int64),
        steps=pl.col("steps").cast(pl.Int64),
        samples_seen=(pl.col("epochs").cast(pl.Float64) * pl.col("unique_samples").cast(pl.Float64))
        .round()
        .cast(pl.Int64),
        loss=pl.col("val_loss").cast(pl.Float64),
        metric=pl.lit(None, dtype=pl.String),
        value=pl.lit(None, dtype=pl.Float64),
        method=pl.col("objective").cast(pl.String),
        table=pl.lit("summary.csv"),
        seed=pl.col("seed").cast(pl.Int64),
        loss_min=pl.col("val_loss_min").cast(pl.Float64),
        passport=pl.col("passport").cast(pl.String),
        checkpoint_sha256=pl.col("checkpoint_sha256").cast(pl.String),
    )
