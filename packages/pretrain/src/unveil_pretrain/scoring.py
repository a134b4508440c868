"""Scoring a run while it trains: validation images and training images under the same frozen masks."""

import math

from unveil_pretrain.checkpointing import last_good
from unveil_pretrain.errors import DivergedError
from unveil_pretrain.run import Run
from unveil_pretrain.train_state import Position
from unveil_pretrain.validate import evaluate

__all__ = ["record_validation"]


def record_validation(run: Run, position: Position) -> float:
    """Score the validation images and the training images of the gap, append to val.jsonl, return the loss.

    Raises:
        DivergedError: a validation loss is not finite.
        DataError: an image cannot be read.
        OutputError: val.jsonl cannot be written.
    """
    bfloat16 = run.config.precision == "bfloat16"
    scores = evaluate(run.objective, run.validation, run.normalise, bfloat16=bfloat16)
    gap = {} if run.gap is None else evaluate(run.objective, run.gap, run.normalise, bfloat16=bfloat16)
    if not all(math.isfinite(score.loss) for score in (*scores.values(), *gap.values())):
        raise DivergedError(
            f"the validation loss is not finite at step {position.step}; {last_good(run)}; "
            "lower base_lr or clip_norm in a new --out"
        )
    main, train = scores["loss"], gap.get("loss")
    row: dict[str, object] = {
        "step": position.step,
        "samples_seen": position.samples_seen,
        "loss": main.loss,
        "standard_error": main.standard_error,
        "num_images": main.num_images,
        "train_loss": None if train is None else train.loss,
        "train_standard_error": None if train is None else train.standard_error,
        "train_num_images": 0 if train is None else train.num_images,
    }
    for view, score in scores.items():
        if view != "loss":
            row |= {f"{view}_loss": score.loss, f"{view}_standard_error": score.standard_error}
    run.folder.add_validation({**row, "passport": run.passport.hash})
    return main.loss
