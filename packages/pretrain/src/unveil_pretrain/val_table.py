"""The losses of every validation image, kept: one parquet file per validation, beside val.jsonl.

A table has a row per split ("val" or "train"), view and image. It is written before the line of val.jsonl that it
belongs to, so that a line always has its table; both are cut back when a run continues. No torch here.
"""

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from unveil_backbones.limits import parse_json
from unveil_backbones.manifest import Passport
from unveil_backbones.panics import without_traces
from unveil_backbones.parquet_pages import check_parquet
from unveil_backbones.whole_files import write_whole

from unveil_pretrain.errors import DataError, OutputError

__all__ = [
    "ImageLosses",
    "ViewTable",
    "read_losses",
    "read_passport",
    "rewind_tables",
    "table_path",
    "write_frame",
    "write_table",
]

_PASSPORT = "passport.json"
_SORTED = ("split", "view", "key")
_COLUMNS = {
    "split": pl.String, "view": pl.String, "key": pl.String, "sample_id": pl.Int64, "group": pl.Int64,
    "value": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewTable:
    """Values of one split: `views` by name, each with a number per image."""

    split: str
    """Either "val", or "train" for the training images of the over-fitting gap."""
    keys: Sequence[str]
    """Keys of the images."""
    sample_ids: np.ndarray
    """int64 [n]."""
    groups: np.ndarray
    """int64 [n]: the negative pool of each image; its own number where images do not meet."""
    views: Mapping[str, np.ndarray]
    """float64 [n] by name: losses, and per-image scores such as hits of a retrieval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageLosses:
    """One view of one validation, image by image, with what is needed to compare it with another."""

    step: int
    keys: tuple[str, ...]
    sample_ids: np.ndarray
    """int64 [n]."""
    groups: np.ndarray
    """int64 [n]: images of one group share their negatives, and are not independent."""
    values: np.ndarray
    """float64 [n]."""
    passport: Passport | None
    """None where the folder has none."""


def table_path(run: Path, step: int) -> Path:
    """Where the table of the validation at `step` is."""
    return run / "val" / f"step_{step:08d}.parquet"


def write_table(run: Path, step: int, splits: Sequence[ViewTable], passport: Passport) -> Path:
    """Write the table of one validation atomically, and the passport beside it once; gives the table.

    Raises:
        OutputError: the folder cannot be written.
    """
    file = table_path(run, step)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_passport(file.parent / _PASSPORT, passport)
    except OSError as error:
        raise OutputError(f"cannot write {file} ({error}); free some space or give another --out") from error
    write_frame(file, splits)
    return file


def write_frame(file: Path, splits: Sequence[ViewTable]) -> None:
    """Write the values of every image as parquet, atomically: columns split, view, key, sample_id, group, value.

    Raises:
        OutputError: the folder cannot be written.
    """
    frames = [
        pl.DataFrame(
            {
                "split": [one.split] * len(one.keys),
                "view": [view] * len(one.keys),
                "key": list(one.keys),
                "sample_id": one.sample_ids,
                "group": one.groups,
                "value": values,
            },
            schema_overrides={"sample_id": pl.Int64, "group": pl.Int64, "value": pl.Float64},
        )
        for one in splits
        for view, values in one.views.items()
    ]
    encoded = io.BytesIO()
    try:
        pl.concat(frames).sort(_SORTED).write_parquet(encoded, compression="zstd")
        write_whole(file, encoded.getvalue())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise OutputError(f"cannot write {file} ({error}); free some space or give another place") from error


def read_losses(run: Path, step: int, *, split: str = "val", view: str = "loss") -> ImageLosses:
    """One view of the validation at `step`, in the order of the keys.

    Raises:
        DataError: there is no such validation, or its table cannot be read.
    """
    file = table_path(run, step)
    try:
        table = _read_frame(file).filter((pl.col("split") == split) & (pl.col("view") == view))
    except FileNotFoundError as error:
        there = ", ".join(str(found) for found in _steps(run)) or "none"
        raise DataError(f"{run} has no validation of step {step}; there are: {there}") from error
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{file} cannot be read ({error}); remove it, or restore it") from error
    if table.is_empty():
        raise DataError(f"{file} has no {split} values of the view {view!r}; give another view or split")
    return ImageLosses(
        step=step,
        keys=tuple(table["key"].to_list()),
        sample_ids=table["sample_id"].to_numpy(),
        groups=table["group"].to_numpy(),
        values=table["value"].to_numpy(),
        passport=read_passport(run),
    )


def _read_frame(file: Path) -> pl.DataFrame:
    """The columns of a table as they were written; PolarsError where one is missing or of another type."""
    try:
        with without_traces():
            check_parquet(file)
            return pl.read_parquet(file).select(*(pl.col(name).cast(kind) for name, kind in _COLUMNS.items()))
    except (pl.exceptions.PanicException, ArithmeticError, MemoryError, TypeError, ValueError) as error:
        # A flipped bit in the metadata makes polars ask for memory without end, or stop with what is no Exception.
        raise pl.exceptions.ComputeError(f"{type(error).__name__} while it was decoded") from error


def read_passport(run: Path) -> Passport | None:
    """The passport of a run's validations; None where there was none yet.

    Raises:
        ManifestError: it is no passport.
        DataError: it is no JSON.
    """
    file = run / "val" / _PASSPORT
    try:
        return Passport.from_json(parse_json(file.read_text(encoding="utf-8")), str(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}); remove it, or restore it") from error


def rewind_tables(run: Path, step: int) -> None:
    """Remove the tables of later steps, and what a kill left half-written.

    Raises:
        OutputError: a file cannot be removed.
    """
    later = [table_path(run, found) for found in _steps(run) if found > step]
    try:
        for file in [*later, *(run / "val").glob(".*.tmp")]:
            file.unlink()
    except OSError as error:
        raise OutputError(f"cannot remove {error.filename} ({error.strerror}); check its permissions") from error


def _steps(run: Path) -> list[int]:
    names = (re.fullmatch(r"step_(\d+)\.parquet", file.name) for file in (run / "val").glob("step_*"))
    return sorted(int(found.group(1)) for found in names if found)


def _write_passport(file: Path, passport: Passport) -> None:
    if not file.exists():
        temporary = file.with_name(f".{file.name}.tmp")
        temporary.write_text(json.dumps(passport.to_json(), indent=1) + "\n", encoding="utf-8")
        temporary.replace(file)
