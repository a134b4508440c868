"""A step that gave no number: what is written down, so that it can be looked at again (`replay.py`)."""

from itertools import chain

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from unveil_pretrain.checkpointing import last_good
from unveil_pretrain.data import Batch
from unveil_pretrain.errors import DivergedError
from unveil_pretrain.run import Run
from unveil_pretrain.train_state import Position

__all__ = ["FAILURE_WEIGHTS", "diverged"]

FAILURE_WEIGHTS = "failure.safetensors"


def diverged(run: Run, position: Position, batch: Batch, losses: Tensor, what: str) -> DivergedError:
    """The error for an update that is not finite; writes failure.json and the weights the step began with.

    Every process calls it.

    Args:
        run: The run; its weights are still those before the step.
        position: Where it stands; `position.step` is the failed step.
        batch: This process's part of the batch.
        losses: Its per-sample losses [b].
        what: "loss" or "gradient norm".
    """
    mine = (batch.sample_ids.tolist(), batch.epochs.tolist(), losses.double().tolist())
    ids, epochs, values = (list(chain(*parts)) for parts in zip(*run.world.gather_objects(mine), strict=True))
    finite = [abs(value) < float("inf") for value in values]
    suspects = [sample_id for sample_id, good in zip(ids, finite, strict=True) if not good] or ids
    last = run.folder.last_checkpoint()

    def write() -> str:
        record = {
            "step": position.step,
            "what": what,
            "sample_ids": ids,
            "epochs": epochs,
            "losses": [value if good else None for value, good in zip(values, finite, strict=True)],
            "last_checkpoint": None if last is None else last.name,
            "weights": _write_weights(run),
        }
        return str(run.folder.write_failure(record))

    file = run.world.first_says(write)
    shown = ", ".join(str(sample_id) for sample_id in suspects[:4])
    more = f" and {len(suspects) - 4} more" if len(suspects) > 4 else ""
    return DivergedError(
        f"the {what} is not finite at step {position.step} (samples {shown}{more}; batch in {file}, look at it by "
        f"`pretrain replay {run.folder.path}`); {last_good(run)}; "
        "lower base_lr or clip_norm, or use float32, in a new --out"
    )


def _write_weights(run: Run) -> str | None:
    """The name of the file with the weights of before the step; None where the disk refuses, which stops nothing."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in run.objective.state_dict().items()}
    try:
        save_file(tensors, run.folder.path / FAILURE_WEIGHTS)
    except (OSError, SafetensorError):
        return None
    return FAILURE_WEIGHTS
