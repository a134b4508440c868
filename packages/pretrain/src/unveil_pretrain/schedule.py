"""The learning rate as a pure function of the step: linear warm-up, then one drop or a cosine."""

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["Schedule", "ScheduleKind"]

ScheduleKind = Literal["multi_step", "cosine"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Learning rate of each step.

    `multi_step` (SimMIM): after the warm-up the peak, multiplied by `gamma` from step `decay_at` · steps on.
    `cosine` (MAE, FLIP): after the warm-up half a cosine from the peak to zero at the end.
    """

    kind: ScheduleKind
    """Shape after the warm-up."""
    peak: float
    """Learning rate at the end of the warm-up."""
    steps: int
    """Length of the run in steps."""
    warmup_steps: int
    """Steps over which the rate rises linearly; 0 starts at the peak."""
    decay_at: float = 7 / 8
    """multi_step: share of the run after which the rate drops (SimMIM: epoch 700 of 800)."""
    gamma: float = 0.1
    """multi_step: factor of the drop."""

    def __call__(self, step: int) -> float:
        """Rate of update `step`, counted from 0; the first warm-up step is already above zero."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        if self.kind == "multi_step":
            return self.peak * (self.gamma if step >= self.decay_at * self.steps else 1.0)
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
