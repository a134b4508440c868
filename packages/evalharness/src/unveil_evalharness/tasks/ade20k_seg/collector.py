"""mmseg's IoUMetric, keeping the counts of each image; needs mmseg, so it is imported inside an open session only."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from mmseg.evaluation import IoUMetric
from torch import Tensor

from unveil_evalharness.tasks.ade20k_seg.layout import IGNORED
from unveil_evalharness.tasks.ade20k_seg.metrics import ImageCounts

__all__ = ["CountingIoU", "confusion"]

_NUM_COUNTS = 4  # intersection, union, predicted, labelled


class CountingIoU(IoUMetric):
    """`IoUMetric` that remembers what it counted.

    Args:
        num_classes: classes of the data.
        keep: image paths whose predicted label maps are kept for pictures.

    Attributes:
        counts: pixels per image and class, once evaluated.
        confusion: pixels by label (rows) and prediction (columns) over all images, once evaluated.
        label_maps: predicted classes of the images to keep, by path.
    """

    def __init__(self, num_classes: int, keep: Collection[str] = ()) -> None:
        super().__init__(ignore_index=IGNORED, iou_metrics=["mIoU"])
        self._num_classes = num_classes
        self._keep = frozenset(keep)
        self.counts: ImageCounts | None = None
        self.confusion: Int[np.ndarray, "c c"] | None = None
        self.label_maps: dict[str, UInt8[np.ndarray, "h w"]] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Counts a batch; one result per image: mmseg's counts, the confusion's occupied cells, a map to keep."""
        before = len(self.results)
        super().process(data_batch, data_samples)
        for position, sample in enumerate(data_samples, start=before):
            predicted = sample["pred_sem_seg"]["data"].squeeze()
            labels = sample["gt_sem_seg"]["data"].squeeze().to(predicted)
            cells = confusion(labels, predicted, self._num_classes)
            path = sample["img_path"]
            kept = predicted.cpu().numpy().astype(np.uint8) if path in self._keep else None
            self.results[position] = (*self.results[position], cells.to_sparse().cpu(), (path, kept))

    def compute_metrics(self, results: Sequence[Any]) -> dict[str, float]:
        """The rounded percentages of mmseg; fills the attributes on the way."""
        intersection, _, predicted, labelled = (
            np.stack([one[part].numpy() for one in results]).astype(np.int64) for part in range(_NUM_COUNTS)
        )
        self.counts = ImageCounts(intersection=intersection, predicted=predicted, labelled=labelled)
        self.confusion = np.sum([one[_NUM_COUNTS].to_dense().numpy() for one in results], axis=0)
        self.label_maps = {path: kept for path, kept in (one[-1] for one in results) if kept is not None}
        counted = [one[:_NUM_COUNTS] for one in results]
        return {name: float(value) for name, value in super().compute_metrics(counted).items()}


def confusion(labels: Int[Tensor, "h w"], predicted: Int[Tensor, "h w"], num_classes: int) -> Int[Tensor, "c c"]:
    """Pixels by label (rows) and prediction (columns); ignored labels are left out."""
    counted = labels != IGNORED
    cells = labels[counted].long() * num_classes + predicted[counted].long()
    return torch.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
