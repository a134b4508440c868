"""The multi-scale test: several sizes of each image, each also mirrored; needs mmseg, so it is imported in a session.

mmseg's test-time augmentation: the probabilities of all views are brought to the image's own size and averaged.
"""

from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmseg.registry import MODELS
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from unveil_evalharness.tasks.ade20k_seg.collector import CountingIoU
from unveil_evalharness.tasks.ade20k_seg.metrics import ImageCounts

__all__ = ["count_views"]


def count_views(
    segmenter: nn.Module, loader: DataLoader[Any], metric: CountingIoU, *, progress: bool
) -> tuple[ImageCounts, dict[str, float]]:
    """Counts of the averaged predictions, and what mmseg's metric reports.

    Args:
        segmenter: trained; in evaluation mode afterwards.
        loader: from `data.views_loader`.
        metric: a fresh metric.
        progress: whether to draw a bar.
    """
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = loader.dataset.metainfo  # pyright: ignore[reportAttributeAccessIssue]
    averaging = MODELS.build({"type": "SegTTAModel", "module": segmenter})
    averaging.eval()
    num_images = 0
    with torch.no_grad():
        for batch in tqdm(loader, desc="ade20k_seg multi-scale", disable=not progress, leave=False):
            predictions = averaging.test_step(batch)
            num_images += len(predictions)
            evaluator.process(data_samples=predictions, data_batch=batch)
    reported = evaluator.evaluate(num_images)
    assert metric.counts is not None, "mmengine's evaluator computes every metric it was given"
    return metric.counts, {name: float(value) for name, value in reported.items()}
