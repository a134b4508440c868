"""How detection and segmentation train: a schedule, and one set of rates per encoder family."""

from dataclasses import dataclass

from unveil_backbones import Encoder

from unveil_evalharness.engine.optim import Decay, OptimiserSettings
from unveil_evalharness.engine.runner import Precision, TrainingPlan
from unveil_evalharness.errors import ProtocolError

__all__ = ["EncoderTuning", "Schedule", "is_plain", "training_plan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderTuning:
    """Rates that the sources set per encoder family."""

    lr: float
    """Peak learning rate of AdamW, of the heads and of the encoder's last layer group."""
    weight_decay: float
    layer_decay: float
    """Learning-rate factor per encoder layer group from the last to the first; 1 trains all alike."""
    drop_path: float
    """Stochastic depth of the encoder's last block; it rises linearly from the first."""

    def __post_init__(self) -> None:
        if self.lr <= 0 or not 0 < self.layer_decay <= 1 or not 0 <= self.drop_path < 1 or self.weight_decay < 0:
            raise ProtocolError(
                "encoder tuning needs lr > 0, weight_decay >= 0, 0 < layer_decay <= 1 and 0 <= drop_path < 1, got "
                f"lr={self.lr}, weight_decay={self.weight_decay}, layer_decay={self.layer_decay}, "
                f"drop_path={self.drop_path}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How long to train and how the learning rate moves."""

    max_iters: int
    """Optimiser steps."""
    warmup_iters: int
    """Steps of linear warm-up."""
    warmup_start: float = 1e-3
    """Learning rate of the first step, as a fraction of the peak."""
    decay: Decay = "cosine"
    milestones: tuple[int, ...] = ()
    """Steps at which decay ``"steps"`` lowers the rate to a tenth."""
    clip_norm: float | None = None
    """Largest gradient norm; None does not clip."""

    def __post_init__(self) -> None:
        if self.max_iters < 1 or max(self.milestones, default=0) >= self.max_iters:
            raise ProtocolError(
                f"a schedule needs at least one step and milestones below its steps, got max_iters={self.max_iters}, "
                f"milestones={self.milestones}"
            )


def is_plain(encoder: Encoder) -> bool:
    """Whether the encoder has one map only, as a ViT does, and no hierarchy of strides."""
    return len(encoder.feature_strides) == 1


def training_plan(schedule: Schedule, tuning: EncoderTuning, *, accumulate: int, precision: Precision) -> TrainingPlan:
    """How the engine trains, with interim checkpoints as it places them by itself."""
    return TrainingPlan(
        max_iters=schedule.max_iters,
        optimiser=OptimiserSettings(
            lr=tuning.lr,
            weight_decay=tuning.weight_decay,
            layer_decay=tuning.layer_decay,
            warmup_iters=schedule.warmup_iters,
            warmup_start=schedule.warmup_start,
            decay=schedule.decay,
            milestones=schedule.milestones,
            clip_norm=schedule.clip_norm,
        ),
        accumulate=accumulate,
        precision=precision,
    )
