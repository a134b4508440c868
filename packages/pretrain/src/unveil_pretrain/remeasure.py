"""The validation loss of a finished checkpoint, measured again: over any images, and under its own frozen masks.

Over the validation images of its run, with the run's batch size, this is to the last bit the loss that the manifest
records; another batch size moves the last digits. Checkpoints of other programs join here, if their files kept what the
loss needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import log
from typing import cast

import numpy as np
import torch
from unveil_backbones import Checkpoint
from unveil_backbones.manifest import Passport, ValPoint

from unveil_pretrain.config import Precision
from unveil_pretrain.data import ClipDataset, ImageDataset, PairDataset, Samples
from unveil_pretrain.errors import ConfigError, DivergedError
from unveil_pretrain.inputs import Normaliser
from unveil_pretrain.objectives.base import ObjectiveConfig
from unveil_pretrain.passports import make_passport
from unveil_pretrain.restoring import restore_objective
from unveil_pretrain.validate import Evaluation, ValidationSet, evaluate, key_ordered

__all__ = ["MASK_SEED", "Remeasured", "ScoreSettings", "remeasure"]

MASK_SEED = 1_000_003
"""Seed of the frozen masks of a run whose settings do not give another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreSettings:
    """How to score; what is None is as the checkpoint's own validation had it, or the default of runs."""

    objective: Mapping[str, object] = field(default_factory=dict)
    """Settings of the objective that go before the checkpoint's."""
    num_images: int = 0
    """Images to score at most, the seeded subset that --val-images takes; 0 for all."""
    num_masks: int | None = None
    """Frozen masks per image."""
    mask_seed: int | None = None
    """Seed of the masks and of the subset."""
    precision: Precision | None = None
    """Arithmetic of the forward pass."""
    batch_size: int = 64
    """Images to encode at once; the losses do not depend on it beyond rounding."""
    num_workers: int = 0
    """Threads that decode images."""

    def __post_init__(self) -> None:
        least = {
            "num_masks": (self.num_masks, 1),
            "batch_size": (self.batch_size, 1),
            "num_images": (self.num_images, 0),
        }
        for name, (value, smallest) in least.items():
            if value is not None and value < smallest:
                raise ConfigError(f"{name} is {value}; give a whole number of at least {smallest}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Remeasured:
    """A loss, image by image, and what it depends on."""

    config: ObjectiveConfig
    """Settings of the objective."""
    evaluation: Evaluation
    """Losses by view, and scores over the whole set."""
    passport: Passport
    """What the losses depend on besides the model."""
    recorded: ValPoint | None
    """The last point of the manifest's validation curve."""
    recorded_passport: Passport | None
    """What that curve depends on."""

    @property
    def chance(self) -> float | None:
        """The loss of a model that cannot tell the pairs of a pool apart: ln(pool) for InfoNCE; None elsewhere."""
        return log(self.passport.negative_pool) if self.passport.reduction == "samples" else None

    @property
    def first_difference(self) -> str | None:
        """The first field in which both passports differ, "passport" where the manifest has none; None if equal."""
        if self.recorded_passport is None:
            return "passport"
        return self.passport.first_difference(self.recorded_passport)


def remeasure(checkpoint: Checkpoint, samples: Samples, settings: ScoreSettings, *, device: torch.device) -> Remeasured:
    """Score samples under frozen masks by the objective that the checkpoint was trained for.

    Args:
        checkpoint: As `unveil_backbones.load` gives it; its encoder is used up.
        samples: Images, image-caption pairs or videos, as the objective needs them.
        settings: How.
        device: Where to compute.

    Raises:
        ConfigError: the checkpoint has no objective that can be scored, or a setting is impossible.
        DataError: an image or caption cannot be read.
        DivergedError: the loss is not finite.
    """
    manifest = checkpoint.manifest
    config, objective = restore_objective(checkpoint, settings.objective)
    objective = objective.to(device)
    known = manifest.passport
    mask_seed = _first(settings.mask_seed, known and known.mask_seed, MASK_SEED)
    precision = cast(Precision, settings.precision or (known.dtype if known else "float32"))
    if 0 < settings.num_images < len(samples):
        samples = samples.subset(settings.num_images, seed=mask_seed)
    image_size = manifest.preprocessing.image_size
    validation = ValidationSet(
        samples=key_ordered(_dataset(config, samples, image_size), objective),
        mask_seed=mask_seed,
        num_masks=_first(settings.num_masks, known and known.num_masks, 1),
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
    )
    normalise = Normaliser(mean=manifest.preprocessing.mean, std=manifest.preprocessing.std, device=device)
    evaluation = evaluate(objective, validation, normalise, bfloat16=precision == "bfloat16", set_scores=True)
    if not np.isfinite(evaluation.losses["loss"]).all():
        raise DivergedError(
            f"the loss of {checkpoint.path} is not finite; it diverged, or has other settings; take an earlier one"
        )
    return Remeasured(
        config=config,
        evaluation=evaluation,
        passport=make_passport(config.name, objective, validation, image_size=image_size, precision=precision),
        recorded=manifest.val[-1] if manifest.val else None,
        recorded_passport=known,
    )


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def _dataset(
    config: ObjectiveConfig, samples: Samples, image_size: tuple[int, int]
) -> ImageDataset | PairDataset | ClipDataset:
    clips = config.clip_settings()
    if clips is not None:
        return ClipDataset(samples, image_size=image_size, clips=clips)
    if config.needs_captions:
        return PairDataset(samples, image_size=image_size, max_characters=config.caption_limit())
    return ImageDataset(samples, image_size=image_size)
