"""One update of the weights: gradients of the whole batch, guards, the optimiser's step."""

import math
from dataclasses import astuple, dataclass, field

from unveil_pretrain.data import Batch, CaptionCounts
from unveil_pretrain.failures import diverged
from unveil_pretrain.memory_guard import is_out_of_memory, out_of_memory
from unveil_pretrain.optim import set_learning_rate
from unveil_pretrain.parallel import clip_gradients
from unveil_pretrain.run import Run
from unveil_pretrain.step import StepLosses
from unveil_pretrain.train_state import Position

__all__ = ["StepMetrics", "train_step"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMetrics:
    """What one update gives: the batch's mean loss, the learning rate, the gradient's norm before clipping, tokens.

    All are of the whole batch, over all processes.
    """

    loss: float
    lr: float
    grad_norm: float
    num_tokens: int
    num_skipped: int = 0
    """Samples of the batch that could not be read and were replaced."""
    captions: CaptionCounts = field(default_factory=CaptionCounts)
    """What was done to the captions of the batch."""


def train_step(run: Run, position: Position, batch: Batch) -> StepMetrics:
    """One update; `position.step` counts from 0, `batch` is the part of this process.

    Raises:
        DivergedError: loss or gradient is not finite; the weights are still those before the step.
        MemoryLimitError: the step does not fit into memory; says what would.
    """
    config, world = run.config, run.world
    run.optimizer.zero_grad(set_to_none=True)
    losses = _gradients(run, position, batch)
    total, num_tokens, num_skipped, *captions = world.sum(
        [
            float(losses.per_sample.double().sum()), losses.num_tokens, len(batch.skipped),
            *astuple(batch.caption_counts),
        ]
    )  # fmt: skip
    loss = total / config.batch_size
    if not math.isfinite(loss):
        raise diverged(run, position, batch, losses.per_sample, "loss")
    grad_norm = clip_gradients(run.objective.parameters(), config.clip_norm)
    if not math.isfinite(grad_norm):
        raise diverged(run, position, batch, losses.per_sample, "gradient norm")
    rate = config.build_schedule()(position.step)
    set_learning_rate(run.optimizer, rate)
    run.optimizer.step()
    run.objective.after_update((position.step + 1) / config.steps)
    return StepMetrics(
        loss=loss,
        lr=rate,
        grad_norm=grad_norm,
        num_tokens=int(num_tokens),
        num_skipped=int(num_skipped),
        captions=CaptionCounts(*(int(count) for count in captions)),
    )


def _gradients(run: Run, position: Position, batch: Batch) -> StepLosses:
    try:
        return run.gradients(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside of the handler: the error's traceback would keep the step's tensors alive.
    raise out_of_memory(run.gradients, batch, position.step)
