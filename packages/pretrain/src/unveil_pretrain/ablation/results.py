"""What the cells of an ablation came to: per-image scores on disk, and their means over seeds in memory."""

import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

import numpy as np
from unveil_backbones.limits import parse_json
from unveil_backbones.manifest import read_manifest

from unveil_pretrain.ablation.cells import Cell
from unveil_pretrain.errors import ResumeError
from unveil_pretrain.flip_scores import VIEWS, FlipScores
from unveil_pretrain.row_checks import is_number

__all__ = ["MEAN_RECALL", "CellScores", "GroupScores", "groups_of", "read_scores", "write_scores"]

MEAN_RECALL: Final = "mean_recall"
"""Mean of the six recalls (both directions at 1, 5 and 10): what the comparisons below are made on."""

# What numpy and zipfile raise for a file that is not as it was written.
_DAMAGED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    RuntimeError,
    MemoryError,
    BadZipFile,
    zlib.error,
    struct.error,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CellScores:
    """One finished run."""

    cell: Cell
    batch_size: int
    steps: int
    seconds: float
    """Of training, on the device."""
    samples: int
    values: Mapping[str, np.ndarray]
    """By "view/score", float64 [n]: "full/text_recall_1", "full/contrastive_loss"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupScores:
    """The runs of one cell with different seeds."""

    cell: Cell
    """One of them."""
    runs: tuple[CellScores, ...]

    def values(self, name: str, view: str = "full") -> np.ndarray:
        """Score of each image, the mean over seeds; float64 [n]."""
        return np.mean([run.values[f"{view}/{name}"] for run in self.runs], axis=0)

    def has(self, view: str) -> bool:
        """Whether the view was scored."""
        return f"{view}/{MEAN_RECALL}" in self.runs[0].values

    def spread(self, name: str) -> float | None:
        """Standard deviation over seeds of the mean score; None for one seed."""
        means = [float(run.values[f"full/{name}"].mean()) for run in self.runs]
        return float(np.std(means, ddof=1)) if len(means) > 1 else None

    @property
    def seconds(self) -> float:
        """Mean seconds of training."""
        return float(np.mean([run.seconds for run in self.runs]))


def write_scores(folder: Path, cell: Cell, checkpoint: Path, scores: FlipScores) -> None:
    """Write the values of every image, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    for view, recalls in scores.recalls.items():
        named = {MEAN_RECALL: np.mean(list(recalls.values()), axis=0), "contrastive_loss": scores.losses[view]}
        arrays |= {f"{view}/{name}": values for name, values in {**recalls, **named}.items()}
    manifest = read_manifest(checkpoint)
    about = {
        "checkpoint": scores.checkpoint,
        "data_hash": scores.data_hash,
        "seconds": manifest.device_seconds,
        "samples": manifest.samples_seen,
        "steps": manifest.step,
    }
    temporary = folder / f".{cell.name}.npz"
    with temporary.open("wb") as stream:
        np.savez(stream, about=np.array(json.dumps(about)), **arrays)  # pyright: ignore[reportArgumentType]
    temporary.replace(_file(folder, cell))


def read_scores(folder: Path, cell: Cell, *, checkpoint_sha256: str, data_hash: str) -> CellScores | None:
    """What `write_scores` wrote for this checkpoint and these images, or None.

    Raises:
        ResumeError: the file is damaged.
    """
    file = _file(folder, cell)
    if not file.is_file():
        return None
    try:
        with file.open("rb") as stream:
            with ZipFile(stream) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} in it is damaged")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as stored:
                about = parse_json(str(stored["about"]))
                if about["checkpoint"] != checkpoint_sha256 or about["data_hash"] != data_hash:
                    return None
                values = {name: stored[name] for name in stored.files if name.split("/")[0] in VIEWS}
        _check(about, values)
    except _DAMAGED as error:
        raise ResumeError(
            f"{file} cannot be read ({type(error).__name__}: {error}); remove it, and the cell is scored again"
        ) from error
    return CellScores(
        cell=cell,
        batch_size=about["samples"] // max(1, about["steps"]),
        steps=about["steps"],
        seconds=about["seconds"],
        samples=about["samples"],
        values=values,
    )


def _check(about: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> None:
    """ValueError where a file holds what `write_scores` does not write."""
    if not all(is_number(about[name], whole=name != "seconds") for name in ("seconds", "samples", "steps")):
        raise ValueError("seconds, samples and steps are no numbers")
    lists = [isinstance(one, np.ndarray) and one.ndim == 1 and one.dtype.kind == "f" for one in values.values()]
    if not lists or not all(lists):
        raise ValueError("its scores are no lists of numbers")


def groups_of(scores: Iterable[CellScores]) -> dict[str, GroupScores]:
    """The runs by cell, in the order in which cells first appear."""
    found: dict[str, list[CellScores]] = {}
    for one in scores:
        found.setdefault(one.cell.group, []).append(one)
    return {name: _group(runs) for name, runs in found.items()}


def _group(runs: Sequence[CellScores]) -> GroupScores:
    return GroupScores(cell=runs[0].cell, runs=tuple(runs))


def _file(folder: Path, cell: Cell) -> Path:
    return folder / f"{cell.name}.npz"
