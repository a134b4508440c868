"""The detection protocols by name: one per suite, and the published schedules. docs/protocols.md has every source."""

from dataclasses import replace

from unveil_evalharness.errors import UnknownSuiteError
from unveil_evalharness.task import SUITES
from unveil_evalharness.tasks.coco_det.config import DetectionProtocol, HeadSizes
from unveil_evalharness.tasks.dense.training import EncoderTuning, Schedule

__all__ = ["SCHEDULES", "epochs_12", "epochs_36", "epochs_100", "protocol_for", "quick_protocol", "short_protocol"]

SCHEDULES = ("1x", "3x", "100ep")
"""Published schedules that `protocol_for` knows beside the suites; ``full`` is ``100ep``."""

_STEPS_PER_EPOCH = 7_330  # 117,266 images of COCO train2017 with objects in batches of 16, as mmdet counts


def quick_protocol() -> DetectionProtocol:
    """A minute on one CPU core: small heads, 128 pixels, 400 training images, no augmentation but flips.

    Meant for comparing checkpoints of small encoders with each other; its numbers compare with no published ones.
    """
    tuning = EncoderTuning(lr=1e-3, weight_decay=0.05, layer_decay=1.0, drop_path=0.0)
    return DetectionProtocol(
        image_size=128,
        scale_range=(1.0, 1.0),
        num_train_images=400,
        num_val_images=100,
        batch_size=4,
        schedule=Schedule(max_iters=180, warmup_iters=10, clip_norm=1.0),
        plain=tuning,
        hierarchical=tuning,
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


def epochs_100() -> DetectionProtocol:
    """ViTDet's recipe (Li et al. 2022, arXiv 2203.16527): 100 epochs at batch 64, 1024 pixels, large-scale jitter.

    Values of the authors' detectron2 configs: ``mask_rcnn_vitdet_b_100ep.py`` for plain encoders,
    ``cascade_mask_rcnn_swin_b_in21k_50ep.py`` for the rates of hierarchical ones.
    """
    return DetectionProtocol(
        image_size=1024,
        scale_range=(0.1, 2.0),
        num_train_images=None,
        num_val_images=None,
        batch_size=64,
        schedule=Schedule(max_iters=184_375, warmup_iters=250, decay="steps", milestones=(163_889, 177_546)),
        plain=EncoderTuning(lr=1e-4, weight_decay=0.1, layer_decay=0.7, drop_path=0.1),
        hierarchical=EncoderTuning(lr=4e-5, weight_decay=0.05, layer_decay=1.0, drop_path=0.4),
        precision="float16",
        heads=HeadSizes(
            channels=256,
            box_channels=1024,
            num_mask_convs=4,
            num_proposal_convs=2,
            num_box_convs=4,
            num_box_layers=1,
            layer_norm=True,
            proposals_before_nms=2000,
        ),
    )


def epochs_12() -> DetectionProtocol:
    """The 1x schedule of 12 epochs at batch 16 with mmdet's plain heads (``mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py``)."""
    return _mmdet_schedule(epochs=12, milestones=(8, 11), scale_range=(1.0, 1.0))


def epochs_36() -> DetectionProtocol:
    """The 3x schedule of 36 epochs with large-scale jitter (``mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py``)."""
    return _mmdet_schedule(epochs=36, milestones=(27, 33), scale_range=(0.1, 2.0))


def _mmdet_schedule(*, epochs: int, milestones: tuple[int, int], scale_range: tuple[float, float]) -> DetectionProtocol:
    return replace(
        epochs_100(),
        scale_range=scale_range,
        batch_size=16,
        schedule=Schedule(
            max_iters=epochs * _STEPS_PER_EPOCH,
            warmup_iters=1_000,
            decay="steps",
            milestones=tuple(epoch * _STEPS_PER_EPOCH for epoch in milestones),
        ),
        plain=EncoderTuning(lr=1e-4, weight_decay=0.05, layer_decay=0.7, drop_path=0.1),
        hierarchical=EncoderTuning(lr=1e-4, weight_decay=0.05, layer_decay=1.0, drop_path=0.2),
        heads=HeadSizes(channels=256, box_channels=1024, num_mask_convs=4, proposals_before_nms=2000),
    )


def short_protocol() -> DetectionProtocol:
    """About an hour on one GPU by estimate: `epochs_100` at 512 pixels, 5,000 steps of 16 images, the same shares."""
    return replace(
        epochs_100(),
        image_size=512,
        batch_size=16,
        schedule=Schedule(max_iters=5_000, warmup_iters=250, decay="steps", milestones=(4_444, 4_815)),
    )


def protocol_for(name: str) -> DetectionProtocol:
    """The protocol of a suite, or of one of `SCHEDULES`.

    Raises:
        UnknownSuiteError: for any other name.
    """
    match name:
        case "quick":
            return quick_protocol()
        case "short":
            return short_protocol()
        case "full" | "100ep":
            return epochs_100()
        case "1x":
            return epochs_12()
        case "3x":
            return epochs_36()
        case _:
            raise UnknownSuiteError(f"coco_det has no suite {name!r}; use one of {', '.join((*SUITES, *SCHEDULES))}")
