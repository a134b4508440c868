"""The detection protocol of each suite."""

from dataclasses import dataclass, replace
from typing import Literal

from unveil_evalharness.errors import ProtocolError, UnknownSuiteError
from unveil_evalharness.task import SUITES

__all__ = ["DetectionProtocol", "HeadSizes", "full_protocol", "protocol_for", "quick_protocol", "short_protocol"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSizes:
    """How large the parts after the encoder are."""

    channels: int
    """Channels of the feature pyramid, the region proposal head and the mask head."""
    box_channels: int
    """Width of the two fully connected layers of the box head."""
    num_mask_convs: int
    """3 × 3 convolutions of the mask head."""
    box_cells: int = 7
    """Cells per side of a region that the box head sees."""
    mask_cells: int = 14
    """Cells per side of a region that the mask head sees; masks are predicted at twice that."""
    anchor_scale: float = 8.0
    """Side of an anchor in cells of its level."""
    proposals_before_nms: int = 1000
    """Best proposals per level that enter suppression."""
    train_proposals: int = 1000
    """Proposals per training image after suppression."""
    test_proposals: int = 1000
    """Proposals per test image after suppression."""
    rpn_samples: int = 256
    """Anchors per image in the proposal loss."""
    region_samples: int = 512
    """Regions per image in the box and mask losses, a quarter of them objects."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionProtocol:
    """Everything that defines the detection numbers besides checkpoint, data and seed."""

    image_size: int
    """Images are scaled to fit a square of this side, aspect ratio kept, and padded to it."""
    scale_range: tuple[float, float]
    """Random scale of training images around that fit (large-scale jitter); (1, 1) for none."""
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
    clip_norm: float | None
    """Largest gradient norm; None does not clip."""
    precision: Literal["float32", "float16", "bfloat16"]
    """On CUDA; a CPU computes in float32."""
    heads: HeadSizes
    score_threshold: float = 0.05
    """Detections below are dropped, as in mmdet's Mask R-CNN."""
    max_detections: int = 100
    """Per image, as COCO's average precision counts them."""
    num_resamples: int = 50
    """Bootstrap resamples of the validation images for the standard errors; 0 for none."""

    def __post_init__(self) -> None:
        low, high = self.scale_range
        if self.image_size < 32 or self.image_size % 32 or not 0 < low <= high:
            raise ProtocolError(
                f"image_size must be a multiple of 32 and scale_range positive and ascending, got {self.image_size} "
                f"and {self.scale_range}"
            )


def quick_protocol() -> DetectionProtocol:
    """A minute on one CPU core: small heads, 128 pixels, 400 training images, no augmentation but flips.

    Meant for comparing checkpoints of small encoders with each other; its numbers compare with no published ones.
    """
    return DetectionProtocol(
        image_size=128,
        scale_range=(1.0, 1.0),
        num_train_images=400,
        num_val_images=100,
        batch_size=4,
        max_iters=180,
        lr=1e-3,
        weight_decay=0.05,
        layer_decay=1.0,
        warmup_iters=10,
        drop_path=0.0,
        clip_norm=1.0,
        precision="float32",
        heads=HeadSizes(
            channels=64,
            box_channels=128,
            num_mask_convs=2,
            mask_cells=8,
            anchor_scale=4.0,
            proposals_before_nms=128,
            train_proposals=64,
            test_proposals=64,
            rpn_samples=64,
            region_samples=32,
        ),
        max_detections=50,
    )


def full_protocol() -> DetectionProtocol:
    """Mask R-CNN fine-tuning of plain and hierarchical encoders as in ViTDet (Li et al. 2022, arXiv 2203.16527).

    From its appendix and the authors' detectron2 configs (``projects/ViTDet``): 1024 pixels, large-scale jitter
    0.1 to 2.0 (Ghiasi et al. 2021), 100 epochs at batch 64 (184,375 steps), AdamW 1e-4, weight decay 0.1, layer
    decay 0.7, drop path 0.1, 250 warm-up steps. Two things differ: the learning rate falls along a cosine instead
    of two steps of 0.1 at 89 % and 96 %, and the heads are the plain ones of mmdet's ``mask-rcnn_r50_fpn.py``.
    The SimMIM data-scaling study (arXiv 2206.04664) states no values for its COCO runs.
    """
    return DetectionProtocol(
        image_size=1024,
        scale_range=(0.1, 2.0),
        num_train_images=None,
        num_val_images=None,
        batch_size=64,
        max_iters=184_375,
        lr=1e-4,
        weight_decay=0.1,
        layer_decay=0.7,
        warmup_iters=250,
        drop_path=0.1,
        clip_norm=1.0,
        precision="bfloat16",
        heads=HeadSizes(channels=256, box_channels=1024, num_mask_convs=4, proposals_before_nms=2000),
    )


def short_protocol() -> DetectionProtocol:
    """About an hour on one GPU by estimate: the model of `full_protocol` at 512 pixels for 5,000 steps of 16 images."""
    return replace(full_protocol(), image_size=512, batch_size=16, max_iters=5_000)


def protocol_for(suite: str) -> DetectionProtocol:
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
            raise UnknownSuiteError(f"coco_det has no suite {suite!r}; use one of {', '.join(SUITES)}")
