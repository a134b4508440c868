"""A moving average of the weights that is tested in their place; imported only inside an open session."""

from typing import Any

from mmengine.hooks import EMAHook
from mmengine.runner import Runner

__all__ = ["StepwiseEma"]


class StepwiseEma(EMAHook):
    """mmengine's hook, moved once per optimiser step however many passes a step has.

    The average begins at the weights after the first step, is kept in interim checkpoints, and is swapped in for the
    evaluation. Buffers are the model's own.

    Args:
        decay: what is kept of the average at each step, such as 0.9999.
        accumulate: passes per optimiser step.
    """

    def __init__(self, *, decay: float, accumulate: int) -> None:
        super().__init__(ema_type="ExponentialMovingAverage", momentum=1 - decay)
        self._accumulate = accumulate
        self._copied = False

    def before_run(self, runner: Runner) -> None:
        """Copies the model once; the Runner calls this before training and again before the evaluation after it."""
        if not self._copied:
            super().before_run(runner)
            self._copied = True

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Moves the average if this pass ended an optimiser step."""
        if (runner.iter + 1) % self._accumulate == 0:
            super().after_train_iter(runner, batch_idx, data_batch, outputs)
