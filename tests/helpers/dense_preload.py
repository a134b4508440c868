"""Imports what detection and segmentation need, and makes their training small: for a server that forks children."""

import dataclasses

from unveil_evalharness import compat

compat.install()

from unveil_evalharness.engine import _mm, runner  # noqa: E402, F401
from unveil_evalharness.tasks.ade20k_seg import data as scenes  # noqa: E402, F401
from unveil_evalharness.tasks.ade20k_seg import model as segmenter  # noqa: E402, F401
from unveil_evalharness.tasks.ade20k_seg import task as segmentation  # noqa: E402
from unveil_evalharness.tasks.coco_det import data as objects  # noqa: E402, F401
from unveil_evalharness.tasks.coco_det import model as detector  # noqa: E402, F401
from unveil_evalharness.tasks.coco_det import task as detection  # noqa: E402
from unveil_evalharness.tasks.coco_det.config import HeadSizes  # noqa: E402
from unveil_evalharness.tasks.dense.training import Schedule  # noqa: E402

SCHEDULE = Schedule(max_iters=6, warmup_iters=1)
HEADS = HeadSizes(
    channels=16, box_channels=16, num_mask_convs=1, anchor_scale=4.0, proposals_before_nms=32, train_proposals=16,
    test_proposals=16, rpn_samples=16, region_samples=8,
)  # fmt: skip

detections, scenes_of = detection.protocol_for, segmentation.protocol_for


def small_detection(suite):
    """Six steps of two images of 64 pixels, with the smallest heads; every detection counts."""
    return dataclasses.replace(
        detections(suite), image_size=64, batch_size=2, schedule=SCHEDULE, heads=HEADS, num_resamples=5,
        score_threshold=0.0,
    )  # fmt: skip


def small_segmentation(suite):
    """Six steps of two crops of 64 pixels, with the smallest head."""
    return dataclasses.replace(
        scenes_of(suite), crop_size=64, stride=32, batch_size=2, schedule=SCHEDULE, channels=32, num_resamples=5
    )


detection.protocol_for = small_detection
segmentation.protocol_for = small_segmentation
runner._FEWEST_STEPS_BETWEEN_CHECKPOINTS = 2
