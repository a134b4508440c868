"""What defines a run: one frozen tree of settings, written to run.json and compared before a run continues.

Where data and results lie, on which device and with how many workers a run is computed is not part of it: the same
run may be continued in another place.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from unveil_pretrain.data.crops import SIMMIM_SCALE, check_crop_scale
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import ObjectiveConfig
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.schedule import Schedule, ScheduleKind

__all__ = [
    "FlipConfig",
    "MimConfig",
    "Precision",
    "RunConfig",
    "config_to_json",
    "first_difference",
    "objective_to_json",
]

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Settings shared by every kind of pre-training."""

    encoder: str
    """Name of the encoder; `unveil_backbones.names()` lists them."""
    image_size: tuple[int, int]
    """Height and width of the training crops in pixels."""
    crop_scale: tuple[float, float] = SIMMIM_SCALE
    """Least and largest area of random crops as shares of the image: 0.67 1 in SimMIM, 0.2 1 in MAE, 0.5 1 in FLIP."""
    mirror: bool = True
    """Mirror half of the random crops; captions may say left and right."""
    drop_path: float = 0.0
    """Stochastic depth of the encoder's last block."""

    steps: int
    """Number of optimiser updates."""
    batch_size: int
    """Images per update, over all processes; open_clip's flag of this name is per GPU."""
    num_unique: int = 0
    """Number of training images to use, a seeded subset; 0 uses all. A smaller subset lies in a larger one."""
    seed: int = 0
    """Seed of initialisation, order, crops, masks and the subset."""

    base_lr: float
    """Learning rate per lr_reference_batch images; the real one is base_lr × batch_size / lr_reference_batch."""
    lr_reference_batch: int
    """Batch size that base_lr is given for: 512 for SimMIM, 256 for MAE and FLIP."""
    warmup_steps: int
    """Steps of linear warm-up."""
    schedule: ScheduleKind
    """Learning rate after the warm-up: one drop (multi_step) or half a cosine."""
    decay_at: float = 7 / 8
    """multi_step: share of the run after which the rate drops."""
    decay_gamma: float = 0.1
    """multi_step: factor of the drop."""
    weight_decay: float = 0.05
    """AdamW's weight decay; biases, norms, tokens and positions have none."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averaging factors."""
    clip_norm: float = 5.0
    """Largest gradient norm; larger gradients are scaled down."""
    max_bad_samples: int = 0
    """Samples that may turn out unreadable and be replaced by the next of the epoch; one more stops the run."""
    precision: Precision = "float32"
    """Arithmetic of the forward pass; bfloat16 uses autocast, weights and losses stay in float32."""

    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from pixels in [0, 1]; ImageNet's by default."""
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Pixels are divided by it; ImageNet's by default."""

    validate_every: int = 1000
    """Steps between validations; there is always one before a checkpoint."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 writes one at the end."""
    val_images: int = 0
    """Number of validation images to use, a seeded subset; 0 uses all."""
    gap_images: int = 1000
    """Training images that are scored like validation images, to show over-fitting; at most all, 0 for none."""
    val_masks: int = 1
    """Frozen masks per validation image, whose mean is its loss; the cost of a validation grows with it."""
    val_mask_seed: int = 1_000_003
    """Seed of the frozen validation masks; equal seeds make the losses of two runs comparable. Differs from seed."""

    def __post_init__(self) -> None:
        _check_sizes(self)
        _check_rates(self)
        check_crop_scale(self.crop_scale)
        if self.val_mask_seed == self.seed:
            raise ConfigError(
                f"val_mask_seed and seed are both {self.seed}; give another seed, or the masks of validation would be "
                "those of the first epoch"
            )

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        return self.base_lr * self.batch_size / self.lr_reference_batch

    def build_schedule(self) -> Schedule:
        """The learning rate of each step."""
        return Schedule(
            kind=self.schedule,
            peak=self.lr,
            steps=self.steps,
            warmup_steps=self.warmup_steps,
            decay_at=self.decay_at,
            gamma=self.decay_gamma,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MimConfig(RunConfig):
    """A run of masked image modelling."""

    objective: ObjectiveConfig
    """What is predicted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipConfig(RunConfig):
    """A run of masked image-text training."""

    objective: FLIPConfig
    """The two towers and their masks."""


def config_to_json(config: MimConfig | FlipConfig) -> dict[str, object]:
    """Every setting as plain JSON values, in the order of the class; the objective carries its name."""
    objective = {"name": config.objective.name, **objective_to_json(config.objective)}
    shared = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "objective"}
    return {**_plain(shared), "objective": objective}


def objective_to_json(config: ObjectiveConfig) -> dict[str, Any]:
    """Settings of an objective as plain JSON values, in the order of its class, without its name."""
    return _plain(asdict(config))


def first_difference(mine: Mapping[str, object], theirs: Mapping[str, object]) -> str | None:
    """The first setting in which two results of `config_to_json` differ, with both values; None if they agree."""
    for name in [*mine, *(name for name in theirs if name not in mine)]:
        left, right = mine.get(name), theirs.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            inner = first_difference(left, right)
            if inner is not None:
                return f"{name}.{inner}"
        elif left != right or (name in mine) != (name in theirs):
            return f"{name} is {left!r} now and was {right!r}"
    return None


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _check_sizes(config: RunConfig) -> None:
    at_least_one = {
        "steps": config.steps,
        "batch_size": config.batch_size,
        "lr_reference_batch": config.lr_reference_batch,
        "validate_every": config.validate_every,
        "val_masks": config.val_masks,
        "image_size": min(config.image_size),
    }
    not_negative = {
        "num_unique": config.num_unique,
        "seed": config.seed,
        "warmup_steps": config.warmup_steps,
        "checkpoint_every": config.checkpoint_every,
        "val_images": config.val_images,
        "gap_images": config.gap_images,
        "val_mask_seed": config.val_mask_seed,
        "max_bad_samples": config.max_bad_samples,
    }
    for least, values in ((1, at_least_one), (0, not_negative)):
        for name, value in values.items():
            if value < least:
                raise ConfigError(f"{name} is {value}; give a whole number of at least {least}")


def _check_rates(config: RunConfig) -> None:
    if not config.pixel_std or len(config.pixel_mean) != len(config.pixel_std):
        raise ConfigError(
            f"pixel_mean is {config.pixel_mean}, pixel_std {config.pixel_std}; give each a number for every channel"
        )
    positive = {"base_lr": config.base_lr, "clip_norm": config.clip_norm, "pixel_std": min(config.pixel_std)}
    for name, value in positive.items():
        if not (math.isfinite(value) and value > 0.0):
            raise ConfigError(f"{name} is {value}; give a positive number")
    shares = {
        "drop_path": config.drop_path,
        "decay_at": config.decay_at,
        "decay_gamma": config.decay_gamma,
        "betas": max(config.betas),
    }
    for name, value in shares.items():
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"{name} is {value}; give a number between 0 and 1")
    if config.weight_decay < 0.0:
        raise ConfigError(f"weight_decay is {config.weight_decay}; give a number that is not negative")
