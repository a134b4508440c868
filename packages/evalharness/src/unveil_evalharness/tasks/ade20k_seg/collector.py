"""mmseg's IoUMetric, keeping the counts of each image; needs mmseg, so it is imported inside an open session only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmseg.evaluation import IoUMetric

from unveil_evalharness.tasks.ade20k_seg.layout import IGNORED
from unveil_evalharness.tasks.ade20k_seg.metrics import ImageCounts

__all__ = ["CountingIoU"]


class CountingIoU(IoUMetric):
    """`IoUMetric` that remembers what it counted; see `counts`."""

    def __init__(self) -> None:
        super().__init__(ignore_index=IGNORED, iou_metrics=["mIoU"])
        self.counts: ImageCounts | None = None

    def compute_metrics(self, results: Sequence[Any]) -> dict[str, float]:
        """The rounded percentages of mmseg; fills `counts` on the way."""
        # Each result is (intersection, union, predicted, labelled), counts per class of one image.
        intersection, _, predicted, labelled = (
            np.stack([one[part].numpy() for one in results]).astype(np.int64) for part in range(4)
        )
        self.counts = ImageCounts(intersection=intersection, predicted=predicted, labelled=labelled)
        return {name: float(value) for name, value in super().compute_metrics(list(results)).items()}
