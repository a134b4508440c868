"""What the cells of the MIM study say: a row per width and fraction, steps between lengths compared image by image."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unveil_pretrain.comparison import PairedDifference, compare_losses
from unveil_pretrain.planning.plans import Cell
from unveil_pretrain.val_table import read_losses

__all__ = ["Point", "Series", "markdown", "read_series", "turns_up"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """The end of one run."""

    steps: int
    epochs: float
    """Passes over its training images."""
    loss: float
    """Validation loss."""
    standard_error: float
    train_loss: float
    """Loss on training images under masks of the same kind."""
    seconds: float
    """Of training, on one CPU thread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """The runs of one encoder, fraction and seed, shortest first."""

    encoder: str
    fraction: float
    seed: int
    points: tuple[Point, ...]
    changes: tuple[PairedDifference, ...]
    """Validation loss of each length minus that of the length before, over the same images."""

    @property
    def over_fitted(self) -> bool:
        """Whether some longer run is worse than a shorter one: the interval of the paired difference is above 0."""
        return any(turns_up(change) for change in self.changes)


def turns_up(change: PairedDifference) -> bool:
    """Whether the loss rose by more than other validation images would explain."""
    return change.low > 0.0


def read_series(cells: Sequence[Cell], sweep: Path) -> list[Series]:
    """The series of all finished cells, in the order of the plan; cells that are missing are left out."""
    groups: dict[tuple[str, float, int], list[Cell]] = {}
    for cell in cells:
        run = sweep / "cells" / cell.name
        if (run / "val.jsonl").is_file() and _rows(run / "val.jsonl")[-1]["step"] == cell.steps:
            groups.setdefault((str(cell.settings["encoder"]), cell.fraction, cell.seed), []).append(cell)
    return [_series(key, sorted(found, key=lambda cell: cell.steps), sweep) for key, found in groups.items()]


def _series(key: tuple[str, float, int], cells: Sequence[Cell], sweep: Path) -> Series:
    runs = [sweep / "cells" / cell.name for cell in cells]
    losses = [read_losses(run, cell.steps) for run, cell in zip(runs, cells, strict=True)]
    changes = tuple(compare_losses(before, after) for before, after in itertools.pairwise(losses))
    return Series(
        encoder=key[0],
        fraction=key[1],
        seed=key[2],
        points=tuple(_point(run, cell.steps) for run, cell in zip(runs, cells, strict=True)),
        changes=changes,
    )


def _point(run: Path, steps: int) -> Point:
    row, metrics = _rows(run / "val.jsonl")[-1], _rows(run / "metrics.jsonl")[-1]
    return Point(
        steps=steps,
        epochs=metrics["epoch"],
        loss=row["loss"],
        standard_error=row["standard_error"],
        train_loss=row["train_loss"],
        seconds=metrics["seconds"],
    )


def _rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def markdown(series: Sequence[Series]) -> str:
    """The table: losses of each length, paired changes with 95 % intervals, the gap of the longest run."""
    lengths = sorted({point.steps for one in series for point in one.points})
    head = ["encoder", "fraction", *(f"val {steps}" for steps in lengths)]
    head += [f"{a} → {b}" for a, b in itertools.pairwise(lengths)] + ["gap", "epochs", "verdict"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for one in series:
        last = one.points[-1]
        cells = [one.encoder, f"{one.fraction:.0%}", *(f"{point.loss:.4f}" for point in one.points)]
        cells += [f"{change.difference:+.4f} [{change.low:+.4f}, {change.high:+.4f}]" for change in one.changes]
        cells += [f"{last.loss - last.train_loss:+.4f}", f"{last.epochs:.0f}"]
        cells.append("turns up" if one.over_fitted else "falls" if _falls(one) else "flat")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _falls(series: Series) -> bool:
    return all(change.high < 0.0 for change in series.changes)
