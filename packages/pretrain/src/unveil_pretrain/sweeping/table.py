"""The results of a sweep: a row per cell, as a table for people and as summary.csv for programs.

Everything is read from the folders of the runs. The loss is that of the last validation, the gap is the validation loss
minus the loss on training images under masks of the same kind.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from unveil_backbones.limits import parse_json
from unveil_backbones.manifest import checkpoint_sha256

from unveil_pretrain.cost import RunCost, read_cost, read_tail
from unveil_pretrain.errors import OutputError
from unveil_pretrain.sweeping.folder import CellState, SweepFolder

_WHOLE = 2**26  # validations are few: all of them

__all__ = ["Row", "read_rows", "table", "write_summary"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What is known of a cell; a column of summary.csv each."""

    cell: str
    """Its name."""
    recipe: str
    """Its recipe."""
    objective: str | None
    """What is predicted."""
    encoder: str | None
    """The encoder."""
    fraction: float
    """Share of the training images."""
    unique_samples: int | None
    """How many they are."""
    steps: int
    """Steps of the whole run."""
    seed: int
    """Seed of the run."""
    state: str
    """done, running, submitted, failed, interrupted or waiting."""
    step: int
    """Steps done."""
    epochs: float | None
    """Passes over the training images so far."""
    val_loss: float | None
    """Last validation loss."""
    val_standard_error: float | None
    """Of its mean over images."""
    train_loss: float | None
    """Loss on training images, scored in the same way."""
    gap: float | None
    """val_loss − train_loss; large where a run over-fits."""
    val_loss_min: float | None
    """Lowest validation loss of the run."""
    val_loss_min_step: int | None
    """Where it was."""
    alarm: str | None
    """What the over-fitting alarm said, if it was raised."""
    passport: str | None
    """Hash of what the validation loss depends on; only losses with equal ones may be compared."""
    seconds: float | None
    """Of training, one device."""
    device_hours: float | None
    """Of training, summed over devices."""
    flops: float | None
    """Operations."""
    device: str | None
    """Where it ran last."""
    verdict: str | None
    """What the plan expected of over-fitting."""
    checkpoint: str | None
    """The last checkpoint, relative to the sweep's folder."""
    checkpoint_sha256: str | None
    """Its hash, by which result rows of `evalharness` name it."""
    reason: str | None
    """Why it failed, or is not in SLURM's hands any more."""


def read_rows(folder: SweepFolder, states: Sequence[CellState]) -> list[Row]:
    """A row per cell, in the order of the plan.

    Raises:
        OutputError: a file of a run cannot be read.
    """
    return [_row(folder, state) for state in states]


def write_summary(folder: SweepFolder, rows: Sequence[Row]) -> Path:
    """Write summary.csv, one line per cell; gives the file.

    Raises:
        OutputError: it cannot be written.
    """
    names = [field.name for field in fields(Row)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[_cell(value) for value in asdict(row).values()] for row in rows])
    file = folder.path / "summary.csv"
    temporary = folder.path / ".summary.csv.tmp"
    try:
        temporary.write_text(text.getvalue(), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise OutputError(f"cannot write {file} ({error.strerror or error}); free some space") from error
    return file


def _cell(value: object) -> object:
    """What stands in the file; a spreadsheet would take words with these beginnings for a formula."""
    if isinstance(value, str) and value.lstrip()[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return "" if value is None else value


def table(rows: Sequence[Row]) -> str:
    """The rows for people: state, steps, losses, gap, alarm, hours; reasons below."""
    header = ("cell", "state", "step", "val loss", "± s.e.", "train", "gap", "epochs", "hours", "alarm")
    lines = [
        (
            row.cell,
            row.state,
            f"{row.step}/{row.steps}",
            _shown(row.val_loss, ".4f"),
            _shown(row.val_standard_error, ".4f"),
            _shown(row.train_loss, ".4f"),
            _shown(row.gap, "+.4f"),
            _shown(row.epochs, ".4g"),
            _shown(row.device_hours, ".3g"),
            row.alarm or "",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    text = [
        "  ".join(
            word.ljust(width) if column in (0, 1, 9) else word.rjust(width)
            for column, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, *lines]
    ]
    text += [f"{row.cell} {row.state}: {row.reason}" for row in rows if row.reason is not None]
    return "\n".join(text) + "\n"


def _row(folder: SweepFolder, state: CellState) -> Row:
    cell, run = state.cell, folder.run_path(state.cell)
    started = (run / "run.json").is_file()
    config = _config(run / "run.json") if started else {}
    cost: RunCost | None = read_cost(run) if started else None
    points = read_tail(run / "val.jsonl", num_bytes=_WHOLE)
    last = points[-1] if points else {}
    best = min(points, key=lambda point: _float(point, "loss") or float("inf"), default={})
    val, train = _float(last, "loss"), _float(last, "train_loss")
    metrics = read_tail(run / "metrics.jsonl")
    epoch = _float(metrics[-1], "epoch") if metrics else None
    checkpoint = run / "checkpoints" / f"step_{cell.steps:08d}" if state.state == "done" else None
    return Row(
        cell=cell.name,
        recipe=cell.recipe,
        objective=_objective(config),
        encoder=None if not started else str(config.get("encoder")),
        fraction=cell.fraction,
        unique_samples=_unique(epoch, cost),
        steps=cell.steps,
        seed=cell.seed,
        state=state.state,
        step=state.step,
        epochs=epoch,
        val_loss=val,
        val_standard_error=_float(last, "standard_error"),
        train_loss=train,
        gap=None if val is None or train is None else val - train,
        val_loss_min=_float(best, "loss"),
        val_loss_min_step=None if not best else int(_float(best, "step") or 0),
        alarm=_alarm(points),
        passport=str(last["passport"]) if "passport" in last else None,
        seconds=None if cost is None else cost.device_seconds / cost.num_devices,
        device_hours=None if cost is None else cost.device_hours,
        flops=None if cost is None else cost.flops,
        device=None if cost is None else cost.device,
        verdict=cell.verdict,
        checkpoint=None if checkpoint is None else str(checkpoint.relative_to(folder.path)),
        checkpoint_sha256=None if checkpoint is None else checkpoint_sha256(checkpoint),
        reason=state.reason,
    )


def _config(file: Path) -> dict[str, object]:
    try:
        config = parse_json(file.read_text(encoding="utf-8"))["identity"]["config"]
        if not isinstance(config["objective"]["name"], str):
            raise TypeError("it names no objective")
        return config
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{file} cannot be read ({error!r}); remove the folder of this cell to run it anew"
        ) from error


def _objective(config: dict[str, object]) -> str | None:
    objective = config.get("objective")
    return str(objective["name"]) if isinstance(objective, dict) else None


def _unique(epoch: float | None, cost: RunCost | None) -> int | None:
    """Training images, from the samples shown and the passes they are."""
    if not epoch or cost is None:
        return None
    images = cost.samples / epoch
    return round(images) if math.isfinite(images) else None


def _alarm(points: Sequence[dict[str, object]]) -> str | None:
    """Since which step the loss has risen, by the first alarm of the run."""
    for point in points:
        alarm = point.get("alarm")
        if isinstance(alarm, dict):
            return f"rises since step {alarm['since_step']}"
    return None


def _float(row: dict[str, object], name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else None


def _shown(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)
