"""The segmentation protocol of each suite."""

from dataclasses import dataclass, replace
from typing import Literal

from unveil_evalharness.errors import ProtocolError, UnknownSuiteError
from unveil_evalharness.task import SUITES

__all__ = ["SegmentationProtocol", "full_protocol", "protocol_for", "quick_protocol", "short_protocol"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationProtocol:
    """Everything that defines the segmentation numbers besides checkpoint, data and seed."""

    crop_size: int
    """Side of the square that the model sees, in training (a random crop) and in testing (a sliding window)."""
    stride: int
    """Step of the sliding window; overlapping predictions are averaged."""
    scale_range: tuple[float, float]
    """Random scale of training images around the one at which their shorter side is `crop_size`."""
    distort_colours: bool
    """mmseg's PhotoMetricDistortion in training."""
    num_train_images: int | None
    """Use a fixed subset of this many training images; None: all."""
    num_val_images: int | None
    """Use a fixed subset of this many validation images; None: all."""
    batch_size: int
    """Images per optimiser step."""
    max_iters: int
    """Optimiser steps."""
    lr: float
    """Peak learning rate of AdamW."""
    weight_decay: float
    layer_decay: float
    """Learning-rate factor per encoder layer group from the last to the first."""
    warmup_iters: int
    drop_path: float
    """Stochastic depth of the encoder."""
    channels: int
    """Channels of the UPerNet head."""
    auxiliary_channels: int
    """Channels of the auxiliary head on the stride-16 map (loss weight 0.4); 0 for none."""
    precision: Literal["float32", "float16", "bfloat16"]
    """On CUDA; a CPU computes in float32."""
    dropout: float = 0.1
    """In the heads, before their last layer."""
    num_resamples: int = 200
    """Bootstrap resamples of the validation images for the standard errors; 0 for none."""

    def __post_init__(self) -> None:
        if self.crop_size < 32 or self.crop_size % 32 or not 0 < self.stride <= self.crop_size:
            raise ProtocolError(
                f"crop_size must be a multiple of 32 and stride at most that, got {self.crop_size} and {self.stride}"
            )


def quick_protocol() -> SegmentationProtocol:
    """Half a minute on one CPU core: 64 pixels, a small head, 400 training images, no augmentation but crops and flips.

    Meant for comparing checkpoints of small encoders with each other; its numbers compare with no published ones.
    """
    return SegmentationProtocol(
        crop_size=64,
        stride=64,
        scale_range=(1.0, 1.0),
        distort_colours=False,
        num_train_images=400,
        num_val_images=100,
        batch_size=8,
        max_iters=160,
        lr=1.5e-3,
        weight_decay=0.05,
        layer_decay=1.0,
        warmup_iters=10,
        drop_path=0.0,
        channels=64,
        auxiliary_channels=0,
        precision="float32",
    )


def full_protocol() -> SegmentationProtocol:
    """UPerNet fine-tuning as for MAE (He et al. 2022, arXiv 2111.06377), ViT-B, on ADE20K.

    Values of mmsegmentation 1.2.2's ``configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py``: 160,000 steps
    of 16 crops of 512 pixels, scale 0.5 to 2, AdamW 1e-4, weight decay 0.05, layer decay 0.65, drop path 0.1, 1,500
    warm-up steps, window stride 341. Three things differ: the learning rate falls along a cosine instead of a line,
    the head has 512 channels (UPerNet's own number) for every encoder, and a plain encoder gives its last map only.
    Batch normalisation sees the images of one pass. The SimMIM data-scaling study (arXiv 2206.04664) states no
    values for its ADE20K runs.
    """
    return SegmentationProtocol(
        crop_size=512,
        stride=341,
        scale_range=(0.5, 2.0),
        distort_colours=True,
        num_train_images=None,
        num_val_images=None,
        batch_size=16,
        max_iters=160_000,
        lr=1e-4,
        weight_decay=0.05,
        layer_decay=0.65,
        warmup_iters=1_500,
        drop_path=0.1,
        channels=512,
        auxiliary_channels=256,
        precision="float16",
    )


def short_protocol() -> SegmentationProtocol:
    """About an hour on one GPU by estimate: `full_protocol` for 10,000 steps of 16 crops."""
    return replace(full_protocol(), max_iters=10_000)


def protocol_for(suite: str) -> SegmentationProtocol:
    """The protocol of a suite.

    Raises:
        UnknownSuiteError: for any name but those of `SUITES`.
    """
    match suite:
        case "quick":
            return quick_protocol()
        case "short":
            return short_protocol()
        case "full":
            return full_protocol()
        case _:
            raise UnknownSuiteError(f"ade20k_seg has no suite {suite!r}; use one of {', '.join(SUITES)}")
