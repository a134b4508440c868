"""`pretrain flip-ablation RECIPE FLAGS`: what masking buys at equal batch, equal samples and equal time."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from unveil_backbones.redaction import redact_record
from unveil_backbones.whole_files import alone

from unveil_pretrain.ablation.cells import Cell, Shape, Variant, cells_of, parse_shape
from unveil_pretrain.ablation.plan import Places, config_of, steps_of
from unveil_pretrain.ablation.study import Ablation, Outcome, relative_flops, write_text
from unveil_pretrain.ablation.tables import to_json, to_markdown, to_text
from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.commands.training import recipe_named
from unveil_pretrain.config import FlipConfig
from unveil_pretrain.errors import OutputError
from unveil_pretrain.flip_scores import VIEWS, View
from unveil_pretrain.recipes import FLIP_RECIPES
from unveil_pretrain.run import DeviceName

__all__ = ["FlipAblationCommand", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationOptions:
    """Cells of the ablation, and where it lives. Every other flag is a setting of the recipe, for the reference."""

    out: Path
    """Folder of the ablation: cells/ (a run each), calibration/, scores/, results.json, tables.md."""
    train_data: str
    """Training shards, as for `pretrain flip`."""
    val_data: str
    """Validation shards; every cell is scored on all of them."""
    cells: tuple[str, ...] = ("0x1", "0.5x1", "0.5x2", "0.75x1", "0.75x4")
    """Mask ratio x batch in multiples of --batch-size; the first is the reference that the others are compared with."""
    equal_time: bool = True
    """Train all cells but the reference a second time, for as many seconds as the reference."""
    variants: tuple[Variant, ...] = ()
    """Also train every masked cell with: unmasked tuning after it (tuned), a reconstruction loss (reconstruct), half of
    the text masked (text_random, text_priority), or smaller images instead of masks (resize)."""
    views: tuple[View, ...] = VIEWS
    """How images are seen when masked cells are scored (table 1d)."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of each cell; more than one shows the spread between training runs."""
    calibration_steps: int = 12
    """Steps of the short runs that measure how long a step takes."""
    calibration_rounds: int = 3
    """How often they are repeated, in turn; the median of all steps counts."""
    device: DeviceName = "auto"
    """Where to compute; auto takes CUDA where there is one."""
    num_workers: int = 0
    """Processes that decode images."""
    dry_run: bool = False
    """Print the cells and train nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipAblationCommand:
    """Train FLIP with several masks and batches, and compare them. The same command again continues."""

    options: AblationOptions
    config: FlipConfig


def run(given: Sequence[str]) -> int:
    """Train and score the cells, print the tables, write results.json and tables.md; 1 if a cell failed."""
    default = FlipAblationCommand(
        options=AblationOptions(out=tyro.MISSING, train_data=tyro.MISSING, val_data=tyro.MISSING),
        config=recipe_named("flip-ablation", FLIP_RECIPES, given),
    )
    command = parse(FlipAblationCommand, given[1:], prog=f"pretrain flip-ablation {given[0]}", default=default)
    options = command.options
    shapes = [parse_shape(text) for text in options.cells]
    cells = cells_of(shapes, equal_time=options.equal_time, variants=list(options.variants), seeds=list(options.seeds))
    if options.dry_run:
        print(_planned(cells, command.config, shapes))
        return 0
    ablation = Ablation(
        base=command.config,
        cells=cells,
        views=options.views,
        calibration_steps=options.calibration_steps,
        calibration_rounds=options.calibration_rounds,
        places=Places(
            out=options.out,
            train_data=options.train_data,
            val_data=options.val_data,
            device=options.device,
            num_workers=options.num_workers,
            log=lambda line: print(line, file=sys.stderr, flush=True),
        ),
    )
    options.out.mkdir(parents=True, exist_ok=True)
    with alone(options.out / ".lock") as mine:
        if not mine:  # its cells would be said to have failed, and steps timed while the other one computes
            raise OutputError(
                f"another `pretrain flip-ablation` is running in {options.out}; wait for it, or give another --out"
            )
        return _show(ablation.run(), options.out)


def _show(outcome: Outcome, out: Path) -> int:
    record = {"tables": to_json(outcome.tables), "failures": redact_record(dict(outcome.failures))}
    write_text(out / "results.json", json.dumps(record, indent=1) + "\n")
    write_text(out / "tables.md", to_markdown(outcome.tables))
    print(to_text(outcome.tables))
    for name, reason in outcome.failures.items():
        print(f"\nfailed: {name}: {reason}")
    return 1 if outcome.failures else 0


def _planned(cells: Sequence[Cell], base: FlipConfig, shapes: list[Shape]) -> str:
    """A line per run: batch, steps, samples, learning rate and relative operations."""
    flops = relative_flops(base, shapes)
    lines = [f"{len(cells)} runs; the reference is {cells[0].name}"]
    for cell in cells:
        steps = None if cell.budget == "time" else steps_of(cell, base, shapes[0], {})
        config = config_of(cell, base, reference=shapes[0], steps=steps or base.steps)
        share = flops[cell.shape]
        samples = f"{config.steps:,} steps, {config.steps * config.batch_size:,} samples"
        length = "steps from the measured time" if steps is None else samples
        cost = "" if share is None else f", {share:.2f}× the operations per sample"
        lines.append(f"{cell.name}: batch {config.batch_size}, {length}, learning rate {config.lr:.3g}{cost}")
    return "\n".join(lines)
