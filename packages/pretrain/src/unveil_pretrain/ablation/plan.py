"""From a cell to the settings of its run, and the seconds of a step that equal time needs."""

import itertools
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from unveil_pretrain.ablation.cells import Cell, Shape
from unveil_pretrain.config import FlipConfig
from unveil_pretrain.errors import ConfigError, ResumeError
from unveil_pretrain.history import read_rows
from unveil_pretrain.loop import train
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.recipes.flip import unmasked
from unveil_pretrain.run import DeviceName

__all__ = ["Places", "config_of", "measure_steps", "seconds_of_steps", "steps_of"]

_METRICS: Final = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where an ablation reads and writes, and how much it may say."""

    out: Path
    """Its folder."""
    train_data: str
    """Training shards."""
    val_data: str
    """Validation shards."""
    device: DeviceName
    """Where to compute."""
    num_workers: int
    """Decoding processes."""
    log: Callable[[str], None]
    """Receives lines about what happens."""

    def train(self, config: FlipConfig, folder: Path, initial: Path | None = None) -> Path:
        """Run or continue one cell, perhaps from another's weights; gives its last checkpoint."""
        return train(
            config,
            out=folder,
            train_data=self.train_data,
            val_data=self.val_data,
            device=self.device,
            num_workers=self.num_workers,
            log=lambda line: self.log(f"  {line}"),
            loggers=(),
            progress=False,
            initial=initial,
        )


def steps_of(cell: Cell, base: FlipConfig, reference: Shape, seconds: Mapping[Shape, float]) -> int:
    """Updates of a cell: the reference's samples, or the reference's seconds, at the cell's batch.

    Args:
        cell: The cell.
        base: The recipe: batch and steps of the reference.
        reference: Shape of the reference.
        seconds: Seconds of one step by shape; only for cells of equal time.

    Raises:
        ConfigError: no time was measured for the cell or the reference.
    """
    if cell.budget == "samples":
        return max(1, round(base.steps * reference.multiple / cell.shape.multiple))
    if cell.shape not in seconds or reference not in seconds:
        raise ConfigError(f"equal time of {cell.shape} needs the seconds of its step and of {reference}'s")
    return max(1, round(base.steps * seconds[reference] / seconds[cell.shape]))


def config_of(cell: Cell, base: FlipConfig, *, reference: Shape, steps: int) -> FlipConfig:
    """The recipe with the cell's mask, batch, length and seed.

    The learning rate follows the batch (FLIP, table 10); the warm-up and what happens every so many steps keep their
    share of the run. A "tuned" cell is the stage after the plain cell, whole images at a lower rate (table 1e).
    """
    of_reference = base.steps

    def scaled(count: int) -> int:
        return max(1, round(count * steps / of_reference)) if count else 0

    config = replace(
        base,
        objective=_objective(cell, base.objective),
        batch_size=base.batch_size * cell.shape.multiple // reference.multiple,
        steps=steps,
        warmup_steps=scaled(base.warmup_steps),
        validate_every=scaled(base.validate_every),
        checkpoint_every=scaled(base.checkpoint_every),
        seed=cell.seed,
    )
    return unmasked(config) if cell.variant == "tuned" else config


def _objective(cell: Cell, base: FLIPConfig) -> FLIPConfig:
    """The objective with the cell's mask and variant."""
    masked = replace(base, mask_ratio=cell.shape.mask_ratio)
    match cell.variant:
        case "reconstruct":
            return replace(masked, reconstruction_weight=base.reconstruction_weight or 1.0)
        case "text_random":
            return replace(masked, text_masking="random", text_keep=max(1, base.text_length // 2))
        case "text_priority":
            return replace(masked, text_masking="priority", text_keep=max(1, base.text_length // 2))
        case "resize":
            return replace(masked, image_reduction="resize")
        case _:
            return masked


def measure_steps(
    shapes: list[Shape], base: FlipConfig, places: Places, *, reference: Shape, steps: int, rounds: int
) -> dict[Shape, float]:
    """Seconds of one training step of each shape: short runs in turn, so that a slow moment meets all of them.

    The median of all steps but the first of each run, as the runs recorded them: seconds on the wall, which is what
    equal time is about. CPU seconds of whole runs, which other processes of the machine do not lengthen, were tried:
    what a start costs varies by more than the steps of a short run.

    Raises:
        PretrainError, BackboneError, MaskingError: as `train`.
    """
    found: dict[Shape, list[float]] = {shape: [] for shape in shapes}
    for number in range(rounds):
        for shape in shapes:
            folder = places.out / "calibration" / f"{shape}_round{number}"
            places.train(_short(shape, base, reference, 1 + steps), folder)
            found[shape] += seconds_of_steps(folder)
    return {shape: statistics.median(seconds) for shape, seconds in found.items()}


def _short(shape: Shape, base: FlipConfig, reference: Shape, steps: int) -> FlipConfig:
    cell = Cell(shape=shape, budget="samples", seed=base.seed)
    return replace(
        config_of(cell, base, reference=reference, steps=steps),
        warmup_steps=0,
        validate_every=steps,
        checkpoint_every=0,
        gap_images=0,
        val_images=base.objective.negative_pool,
    )


def seconds_of_steps(folder: Path) -> list[float]:
    """Seconds of each step of a run but the first, which pays for what is made once.

    Raises:
        ResumeError: the run has recorded fewer than two steps.
        OutputError: a line of its record is damaged.
    """
    totals = [float(row["seconds"]) for row in read_rows(folder / _METRICS) if row.get("seconds") is not None]
    if len(totals) < 2:
        raise ResumeError(f"{folder / _METRICS} has {len(totals)} steps; remove {folder} to measure again")
    return [after - before for before, after in itertools.pairwise(totals)]
