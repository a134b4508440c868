"""What a validation loss depends on besides the model: two losses may be compared only if their passports agree.

Standard library only, so that studies of many checkpoints need no torch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from unveil_backbones._json import JSON, Fields, read_float, read_int, read_object, read_text, sequence_of

__all__ = ["Passport", "ValPoint"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Passport:
    """Everything that moves a validation loss although the model stays the same."""

    objective: str
    """Name of the objective: ``simmim``, ``mae``, ``flip``."""
    target_normalisation: str
    """How the target is normalised, with its window where it has one: ``none``, ``patch``, ``window47``."""
    reduction: str
    """What the mean runs over: ``hidden_pixels``, ``samples``."""
    mask: dict[str, JSON]
    """What the masking strategy says of itself: strategy, ratio, unit, rounding."""
    realised_ratio: float
    """The share of tokens that were really hidden."""
    mask_seed: int
    """Seed of the frozen validation masks."""
    mask_epoch: int
    """Epoch key of the frozen validation masks."""
    image_size: tuple[int, int]
    """Height and width in pixels."""
    crop: str
    """How images were cut, with its numbers: ``center0.875``, ``resize``."""
    images_hash: str
    """Hash of the list of validation images."""
    negative_pool: int
    """Number of negatives each pair is compared with; 0 for an objective without negatives."""
    dtype: str
    """Arithmetic of the forward pass: ``float32``, ``bfloat16``."""
    num_masks: int = 1
    """Masks that each image is scored under, of the epoch keys from ``mask_epoch`` on; absent from the text when 1."""

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits; equal exactly when ``first_difference`` finds nothing."""
        return hashlib.sha256(_canonical(self.to_json()).encode()).hexdigest()[:16]

    def first_difference(self, other: "Passport") -> str | None:
        """Name the first field, in the order of this class, in which two passports differ; ``None`` if they agree.

        A difference inside the mask description is named with a dot: ``mask.unit``.
        """
        theirs = asdict(other)
        for name, value in asdict(self).items():
            if _canonical(value) == _canonical(theirs[name]):
                continue
            return f"mask.{_first_key_of_difference(self.mask, other.mask)}" if name == "mask" else name
        return None

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        values = {**asdict(self), "image_size": list(self.image_size)}
        # Passports that were written before the field existed keep their hash.
        return values if self.num_masks != 1 else {name: value for name, value in values.items() if name != "num_masks"}

    @classmethod
    def from_json(cls, value: JSON, where: str = "passport") -> "Passport":
        """Read what ``to_json`` wrote.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
        """
        fields = Fields(value, where)
        height, width = fields.take("image_size", sequence_of(read_int, 2))
        passport = cls(
            objective=fields.take("objective", read_text),
            target_normalisation=fields.take("target_normalisation", read_text),
            reduction=fields.take("reduction", read_text),
            mask=fields.take("mask", read_object),
            realised_ratio=fields.take("realised_ratio", read_float),
            mask_seed=fields.take("mask_seed", read_int),
            mask_epoch=fields.take("mask_epoch", read_int),
            image_size=(height, width),
            crop=fields.take("crop", read_text),
            images_hash=fields.take("images_hash", read_text),
            negative_pool=fields.take("negative_pool", read_int),
            dtype=fields.take("dtype", read_text),
            num_masks=fields.take("num_masks", read_int, 1),
        )
        fields.done()
        return passport


@dataclass(frozen=True, kw_only=True, slots=True)
class ValPoint:
    """One point of the validation curve."""

    step: int
    """Optimiser steps done."""
    loss: float
    """Mean over the validation images."""
    standard_error: float
    """Standard error of that mean."""
    num_images: int
    """Number of validation images (or pairs)."""
    train_loss: float | None = None
    """Training loss at about the same step, where it was recorded: over-fitting shows as a gap."""

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: JSON, where: str = "val") -> "ValPoint":
        """Read what ``to_json`` wrote.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
        """
        fields = Fields(value, where)
        point = cls(
            step=fields.take("step", read_int),
            loss=fields.take("loss", read_float),
            standard_error=fields.take("standard_error", read_float),
            num_images=fields.take("num_images", read_int),
            train_loss=fields.take("train_loss", lambda v, w: None if v is None else read_float(v, w)),
        )
        fields.done()
        return point


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _first_key_of_difference(mine: Mapping[str, JSON], theirs: Mapping[str, JSON]) -> str:
    return next(
        key for key in sorted({*mine, *theirs}) if key not in mine or key not in theirs or mine[key] != theirs[key]
    )
