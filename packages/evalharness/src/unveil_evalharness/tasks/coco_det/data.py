"""mmdet's CocoDataset, its pipelines and its loaders; needs mmdet, so it is imported inside an open session only."""

from typing import Any

from mmdet.datasets import CocoDataset
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from unveil_evalharness.compat.images import LoadRgb
from unveil_evalharness.engine.stream import keyed_loader
from unveil_evalharness.tasks.coco_det.annotations import SplitFiles
from unveil_evalharness.tasks.coco_det.config import DetectionProtocol

__all__ = ["test_dataset", "test_loader", "train_dataset", "train_loader"]

_SMALLEST_OBJECT = (1e-2, 1e-2)  # pixels; what a crop leaves of an object may be nothing


def _dataset(files: SplitFiles, pipeline: list[Any], *, test_mode: bool) -> CocoDataset:
    return CocoDataset(
        ann_file=str(files.annotation_file),
        data_prefix={"img": str(files.image_dir)},
        metainfo={"classes": files.classes, "palette": [(0, 0, 0)] * len(files.classes)},
        pipeline=pipeline,
        test_mode=test_mode,
    )


def train_dataset(files: SplitFiles, protocol: DetectionProtocol) -> CocoDataset:
    """Images with boxes and masks, flipped at random, jittered in scale where the protocol asks for it."""
    side = (protocol.image_size, protocol.image_size)
    pipeline: list[Any] = [LoadRgb(), {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}]
    if protocol.scale_range == (1.0, 1.0):
        pipeline.append({"type": "Resize", "scale": side, "keep_ratio": True})
    else:
        pipeline += [
            {"type": "RandomResize", "scale": side, "ratio_range": protocol.scale_range, "keep_ratio": True},
            {
                "type": "RandomCrop",
                "crop_type": "absolute_range",
                "crop_size": side,
                "recompute_bbox": True,
                "allow_negative_crop": True,
            },
        ]
    pipeline += [
        {"type": "FilterAnnotations", "min_gt_bbox_wh": _SMALLEST_OBJECT, "keep_empty": False},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PackDetInputs"},
    ]
    return _dataset(files, pipeline, test_mode=False)


def test_dataset(files: SplitFiles, protocol: DetectionProtocol) -> CocoDataset:
    """Images scaled to fit, without labels: the metric reads those from the annotation file."""
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    side = (protocol.image_size, protocol.image_size)
    pipeline = [
        LoadRgb(),
        {"type": "Resize", "scale": side, "keep_ratio": True},
        {"type": "PackDetInputs", "meta_keys": keys},
    ]
    return _dataset(files, pipeline, test_mode=True)


def train_loader(
    files: SplitFiles, protocol: DetectionProtocol, *, batch_size: int, seed: int, num_workers: int
) -> DataLoader[Any]:
    """Endless training batches, a function of seed and step."""
    return keyed_loader(
        train_dataset(files, protocol),
        batch_size=batch_size,
        seed=seed,
        num_workers=num_workers,
        collate=pseudo_collate,
    )


def test_loader(
    files: SplitFiles, protocol: DetectionProtocol, *, batch_size: int, num_workers: int
) -> DataLoader[Any]:
    """Every validation image once, in order."""
    return DataLoader(
        test_dataset(files, protocol),
        batch_size=batch_size,
        shuffle=False,
        num_workers=num_workers,
        collate_fn=pseudo_collate,
    )
