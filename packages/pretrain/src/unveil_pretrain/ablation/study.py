"""An ablation from its first cell to its tables; every cell is a run folder of its own and continues like any run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unveil_backbones.errors import BackboneError
from unveil_backbones.limits import parse_json
from unveil_backbones.manifest import checkpoint_sha256
from unveil_masking import MaskingError

from unveil_pretrain.ablation.cells import Cell, Shape
from unveil_pretrain.ablation.plan import Places, config_of, measure_steps, steps_of
from unveil_pretrain.ablation.results import CellScores, groups_of, read_scores, write_scores
from unveil_pretrain.ablation.tables import Table, tables_of
from unveil_pretrain.config import FlipConfig, config_to_json, first_difference
from unveil_pretrain.data.opening import open_samples
from unveil_pretrain.errors import OutputError, PretrainError, ResumeError
from unveil_pretrain.flip_scores import View, score_pair
from unveil_pretrain.planning.flops import sample_flops
from unveil_pretrain.row_checks import is_number
from unveil_pretrain.run import choose_device

__all__ = ["Ablation", "Outcome", "relative_flops", "write_text"]

_RECORD = "ablation.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What an ablation came to."""

    tables: Sequence[Table]
    failures: Mapping[str, str]
    """By cell: why it has no result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    """Cells around one recipe."""

    base: FlipConfig
    """The recipe with the reference's batch, steps and samples."""
    cells: tuple[Cell, ...]
    """The reference is the first."""
    views: tuple[View, ...]
    """How images are seen when masked cells are scored."""
    calibration_steps: int
    """Steps of each short run that measures the time of a step."""
    calibration_rounds: int
    """How often each of these is repeated."""
    places: Places

    @property
    def reference(self) -> Shape:
        """Shape that all others are compared with."""
        return self.cells[0].shape

    def run(self) -> Outcome:
        """Train and score every cell that is not finished; a failed cell does not stop the others.

        Raises:
            ResumeError: the folder holds an ablation of other settings.
            OutputError: the folder cannot be written.
            PretrainError, BackboneError, MaskingError: the times of steps cannot be measured.
        """
        seconds = self._seconds()
        scored: list[CellScores] = []
        failures: dict[str, str] = {}
        for number, cell in enumerate(self.cells, start=1):
            self.places.log(f"cell {number} of {len(self.cells)}: {cell.name}")
            try:
                steps = steps_of(cell, self.base, self.reference, seconds)
                scored.append(self._cell(cell, steps))
            except (PretrainError, BackboneError, MaskingError, OSError) as error:
                failures[cell.name] = str(error)
                self.places.log(f"  failed: {error}")
        shapes = dict.fromkeys(cell.shape for cell in self.cells)
        return Outcome(
            tables=tables_of(groups_of(scored), self.reference, relative_flops(self.base, list(shapes)), seconds),
            failures=failures,
        )

    def _cell(self, cell: Cell, steps: int) -> CellScores:
        """The scores of one cell; trains what is missing."""
        config = config_of(cell, self.base, reference=self.reference, steps=steps)
        folders = self.places.out / "cells"
        initial = folders / replace(cell, variant="plain").name if cell.variant == "tuned" else None
        checkpoint = self.places.train(config, folders / cell.name, initial)
        folder, sha256 = self.places.out / "scores", checkpoint_sha256(checkpoint)
        data_hash = open_samples(self.places.val_data).content_hash
        found = read_scores(folder, cell, checkpoint_sha256=sha256, data_hash=data_hash)
        if found is None:
            scores = score_pair(
                checkpoint,
                self.places.val_data,
                views=self.views if cell.shape.mask_ratio > 0.0 and cell.variant != "resize" else ("full",),
                mask_ratio=cell.shape.mask_ratio,
                seed=self.base.val_mask_seed,
                batch_size=self.base.batch_size,
                num_workers=self.places.num_workers,
                device=choose_device(self.places.device),
            )
            write_scores(folder, cell, checkpoint, scores)
            found = read_scores(folder, cell, checkpoint_sha256=sha256, data_hash=data_hash)
        if found is None:
            raise OutputError(f"{folder} changes while it is read; let one ablation at a time use {self.places.out}")
        return found

    def _seconds(self) -> dict[Shape, float]:
        """Seconds of a step of every shape that is trained for equal time, measured once for this folder."""
        record = self._record()
        timed = dict.fromkeys(cell.shape for cell in self.cells if cell.budget == "time")
        known = {
            shape: float(record[str(shape)])
            for shape in dict.fromkeys([self.reference, *timed])
            if str(shape) in record
        }
        if timed and not {self.reference, *timed} <= set(known):
            self.places.log(f"measuring the time of a step: {self.calibration_steps} steps of each cell, in turn")
            # All of them again: times of different days must not be mixed.
            known = measure_steps(
                [self.reference, *(shape for shape in timed if shape != self.reference)],
                self.base,
                self.places,
                reference=self.reference,
                steps=self.calibration_steps,
                rounds=self.calibration_rounds,
            )
        self._write_record({str(shape): value for shape, value in known.items()})
        return known

    def _record(self) -> dict[str, float]:
        """The measured seconds in the folder's record.

        Raises:
            ResumeError: it belongs to another recipe or cannot be read.
        """
        file = self.places.out / _RECORD
        if not file.exists():
            return {}
        try:
            record = parse_json(file.read_text(encoding="utf-8"))
            difference = first_difference(json.loads(json.dumps(config_to_json(self.base))), record["config"])
            seconds = dict(record["seconds_per_step"])
            odd = next((name for name, value in seconds.items() if not is_number(value) or value <= 0), None)
            if odd is not None:
                raise ValueError(f"a step of {odd} takes {str(seconds[odd])[:40]} seconds")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResumeError(f"{file} cannot be read ({error!r}); give a new --out") from error
        if difference is not None:
            raise ResumeError(
                f"{self.places.out} holds an ablation with other settings: {difference}; "
                "repeat the command it was started with, or give a new --out"
            )
        return seconds

    def _write_record(self, seconds: Mapping[str, float]) -> None:
        file = self.places.out / _RECORD
        record = {"config": config_to_json(self.base), "seconds_per_step": dict(seconds)}
        try:
            write_text(file, json.dumps(record, indent=1) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {file} ({error}); free some space or give another --out") from error


def relative_flops(base: FlipConfig, shapes: Sequence[Shape]) -> dict[Shape, float | None]:
    """Operations of one training sample over those of the first shape; None where they are not counted."""
    totals = {
        shape: sample_flops(
            config_of(Cell(shape=shape, budget="samples"), base, reference=shapes[0], steps=base.steps)
        ).total
        for shape in shapes
    }
    first = totals[shapes[0]]
    return {shape: total / first if total is not None and first else None for shape, total in totals.items()}


def write_text(file: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
