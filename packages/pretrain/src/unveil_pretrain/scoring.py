"""Scoring a run while it trains: validation images and training images under the same frozen masks."""

import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from tqdm import tqdm

from unveil_pretrain.alarm import WHAT_A_RISE_MEANS, WINDOWS, Alarm, detect_rise
from unveil_pretrain.checkpointing import last_good
from unveil_pretrain.comparison import independent_values, mean_and_error
from unveil_pretrain.config import RunConfig
from unveil_pretrain.errors import DivergedError
from unveil_pretrain.history import read_rows
from unveil_pretrain.run import Run
from unveil_pretrain.train_state import Position
from unveil_pretrain.val_table import read_losses, write_table
from unveil_pretrain.validate import Evaluation, evaluate

__all__ = ["count_validations", "record_validation"]


def record_validation(run: Run, position: Position) -> float:
    """Score the validation images and the training images of the gap, record both, and return the loss.

    The losses of every image go into val/step_XXXXXXXX.parquet, then their means into val.jsonl. A rise that noise does
    not explain is recorded there too, and said once on stderr.

    Raises:
        DivergedError: a validation loss is not finite.
        DataError: an image cannot be read, or the losses of an earlier validation.
        OutputError: a file cannot be written.
    """
    bfloat16 = run.config.precision == "bfloat16"
    val = evaluate(run.objective, run.validation, run.normalise, bfloat16=bfloat16, world=run.world, set_scores=True)
    train = None
    if run.gap is not None:
        train = evaluate(run.objective, run.gap, run.normalise, bfloat16=bfloat16, world=run.world)
    if not all(np.isfinite(values).all() for part in (val, train) if part for values in part.losses.values()):
        raise DivergedError(
            f"the validation loss is not finite at step {position.step}; {last_good(run)}; "
            "lower base_lr or clip_norm in a new --out"
        )
    run.world.first_says(lambda: _record(run, position, val, train))
    return val.score().loss


def count_validations(config: RunConfig) -> int:
    """Validations of the whole run: every validate_every and checkpoint_every steps, and at the end."""
    every = [gap for gap in (config.validate_every, config.checkpoint_every) if gap > 0]
    both = config.steps // math.lcm(*every) if len(every) == 2 else 0
    at_end = all(config.steps % gap for gap in every)
    return sum(config.steps // gap for gap in every) - both + at_end


def _record(run: Run, position: Position, val: Evaluation, train: Evaluation | None) -> None:
    splits = [val.table("val"), *([] if train is None else [train.table("train")])]
    write_table(run.folder.path, position.step, splits, run.passport)
    earlier = [row for row in read_rows(run.folder.path / "val.jsonl") if row.get("step") != position.step]
    alarm = _alarm(run, position, val, earlier)
    row = {
        "step": position.step,
        "samples_seen": position.samples_seen,
        "epochs": position.samples_seen / len(run.data.train),
        **_main_scores(val, train),
        **_further_scores(val),
        "num_masks": run.validation.num_masks,
        "alarm": None if alarm is None else alarm.to_json(),
        "passport": run.passport.hash,
    }
    run.folder.add_validation(row)
    if alarm is not None and not any(before.get("alarm") for before in earlier):
        tqdm.write(_words(alarm, row["epochs"], val, train), file=sys.stderr)


def _main_scores(val: Evaluation, train: Evaluation | None) -> dict[str, object]:
    main, seen = val.score(), None if train is None else train.score()
    return {
        "loss": main.loss,
        "standard_error": main.standard_error,
        "num_images": main.num_images,
        "train_loss": None if seen is None else seen.loss,
        "train_standard_error": None if seen is None else seen.standard_error,
        "train_num_images": 0 if seen is None else seen.num_images,
        "gap": None if seen is None else main.loss - seen.loss,
        "gap_standard_error": None if seen is None else math.hypot(main.standard_error, seen.standard_error),
    }


def _further_scores(val: Evaluation) -> dict[str, float]:
    """Views of the loss with how much the loss exceeds them, paired, and the scores over the whole set."""
    row: dict[str, float] = {}
    for view, values in val.losses.items():
        if view != "loss":
            score = val.score(view)
            above, error, _ = mean_and_error(val.losses["loss"] - values, val.groups)
            row |= {f"{view}_loss": score.loss, f"{view}_standard_error": score.standard_error}
            row |= {f"{view}_gap": above, f"{view}_gap_standard_error": error}
    for name in val.set_scores:
        score = val.score(name)
        row |= {name: score.loss, f"{name}_standard_error": score.standard_error}
    return row


def _alarm(run: Run, position: Position, val: Evaluation, earlier: Sequence[Mapping[str, object]]) -> Alarm | None:
    steps = [step for row in earlier[1 - max(WINDOWS) :] if isinstance(step := row.get("step"), int)]
    lowest = min((loss for row in earlier if isinstance(loss := row.get("loss"), float)), default=math.inf)
    if len(steps) + 1 < min(WINDOWS) or val.score().loss <= lowest:
        return None
    losses = [read_losses(run.folder.path, step) for step in steps]
    values = [independent_values(one.values, one.groups) for one in losses]
    values.append(independent_values(val.losses["loss"], val.groups))
    return detect_rise([*steps, position.step], np.stack(values), num_validations=count_validations(run.config))


def _words(alarm: Alarm, epochs: object, val: Evaluation, train: Evaluation | None) -> str:
    gap = "" if train is None else f"; the gap to the training loss is {val.score().loss - train.score().loss:+.4g}"
    return (
        f"over-fitting alarm at step {alarm.step}, after {epochs:.4g} epochs over the data: the validation loss has "
        f"risen by {alarm.rise:.4g} ± {alarm.standard_error:.2g} since step {alarm.since_step}{gap}. Of runs whose "
        f"loss does not rise, at most {alarm.false_alarm_rate:.0%} say this at any time. {WHAT_A_RISE_MEANS}"
    )
