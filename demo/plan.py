"""What the demo runs: two data sizes × three lengths of SimMIM, one FLIP, and the four tasks on each checkpoint."""

import sys
from dataclasses import dataclass
from pathlib import Path

from demo.cells import Cell

__all__ = ["Budget", "evaluation_cells", "pretraining_cells"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Sizes of the demo. The defaults take about ten minutes on two processor cores."""

    num_unique: tuple[int, ...] = (16, 2000)
    """Numbers of unique training images: the data axis of the scaling study in miniature."""
    steps: tuple[int, ...] = (100, 200, 400)
    """Training lengths of the SimMIM runs; each has its own schedule."""
    flip_steps: int = 400
    """Training length of the FLIP run."""
    limit: int | None = None
    """Passed on to the tasks: evaluate this many images only (marks every row as limited)."""


def _shards(folder: Path, split: str) -> str:
    """The shards of a split in webdataset's `::` syntax."""
    return "::".join(str(path) for path in sorted(folder.glob(f"{split}-*.tar")))


def _program(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"unveil_{name}")


def pretraining_cells(data_root: Path, out: Path, budget: Budget) -> list[Cell]:
    """One `pretrain mim` command per (data size, length) and one `pretrain flip`."""
    images, pairs = data_root / "shards" / "images", data_root / "shards" / "pairs"
    cells = []
    for num_unique in budget.num_unique:
        for steps in budget.steps:
            name = f"simmim-u{num_unique:05d}-s{steps:05d}"
            command = (
                *_program("pretrain"), "mim", "tiny_simmim", "--out", str(out / "pretrain" / name),
                "--train-data", _shards(images, "train"), "--val-data", _shards(images, "val"),
                "--num-unique", str(num_unique), "--steps", str(steps),
            )  # fmt: skip
            cells.append(Cell(name=name, command=command, log=out / "logs" / f"{name}.log", weight=steps))
    name = f"flip-s{budget.flip_steps:05d}"
    command = (
        *_program("pretrain"), "flip", "tiny_flip", "--out", str(out / "pretrain" / name),
        "--train-data", _shards(pairs, "train"), "--val-data", _shards(pairs, "val"), "--steps", str(budget.flip_steps),
    )  # fmt: skip
    cells.append(Cell(name=name, command=command, log=out / "logs" / f"{name}.log", weight=budget.flip_steps))
    return cells


def evaluation_cells(data_root: Path, out: Path, pretraining: list[Cell], budget: Budget) -> list[Cell]:
    """One `evalharness run` command per checkpoint; all of them append to the same results."""
    limit = () if budget.limit is None else ("--limit", str(budget.limit))
    cells = []
    for cell in pretraining:
        command = (
            *_program("evalharness"), "run", "--ckpt", str(out / "pretrain" / cell.name), "--suite", "quick",
            "--data-root", str(data_root), "--output-path", str(out / "eval"), *limit,
        )  # fmt: skip
        cells.append(Cell(name=cell.name, command=command, log=out / "logs" / f"eval-{cell.name}.log"))
    return cells
