"""mmseg's dataset class, its pipelines and its loaders; needs mmseg, so it is imported inside an open session only."""

from collections.abc import Sequence
from typing import Any

from mmengine.dataset import pseudo_collate
from mmseg.datasets import BaseSegDataset
from torch.utils.data import DataLoader

from unveil_evalharness.compat.images import LoadRgb
from unveil_evalharness.engine.stream import keyed_loader
from unveil_evalharness.tasks.ade20k_seg.config import SegmentationProtocol
from unveil_evalharness.tasks.ade20k_seg.layout import Pair

__all__ = ["ScenePairs", "test_loader", "train_loader", "views_loader"]

_WIDEST = 4  # a side may be this many times the other before it limits the scale, as in mmseg's (2048, 512)
_LARGEST_SHARE = 0.75  # of a training crop that one class may fill (mmseg's cat_max_ratio)


class ScenePairs(BaseSegDataset):
    """Label maps with 0 = unlabelled, whatever the images' format.

    Args:
        pairs: images with their label maps.
        classes: names of the classes 1 … N.
        pipeline: mmseg transforms.
        test_mode: whether damaged samples may be replaced by others (False) or not.
    """

    METAINFO: dict[str, Any] = {}  # noqa: RUF012 - mmseg's class attribute

    def __init__(self, pairs: Sequence[Pair], classes: Sequence[str], pipeline: list[Any], *, test_mode: bool) -> None:
        self._pairs = list(pairs)
        palette = [[0, 0, 0]] * len(classes)
        super().__init__(
            metainfo={"classes": tuple(classes), "palette": palette},
            pipeline=pipeline,
            test_mode=test_mode,
            reduce_zero_label=True,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """One record per pair, in mmseg's terms."""
        return [
            {
                "img_path": str(pair.image),
                "seg_map_path": str(pair.labels),
                "label_map": None,
                "reduce_zero_label": True,
                "seg_fields": [],
            }
            for pair in self._pairs
        ]


def _labels() -> dict[str, Any]:
    return {"type": "LoadAnnotations", "reduce_zero_label": True, "imdecode_backend": "pillow"}


def train_loader(
    pairs: Sequence[Pair],
    classes: Sequence[str],
    protocol: SegmentationProtocol,
    *,
    batch_size: int,
    seed: int,
    num_workers: int,
) -> DataLoader[Any]:
    """Endless batches of random crops, a function of seed and step."""
    side = protocol.crop_size
    pipeline: list[Any] = [
        LoadRgb(),
        _labels(),
        {
            "type": "RandomResize",
            "scale": (_WIDEST * side, side),
            "ratio_range": protocol.scale_range,
            "keep_ratio": True,
        },
        {"type": "RandomCrop", "crop_size": (side, side), "cat_max_ratio": _LARGEST_SHARE},
        {"type": "RandomFlip", "prob": 0.5},
    ]
    if protocol.distort_colours:
        pipeline.append({"type": "PhotoMetricDistortion"})
    pipeline.append({"type": "PackSegInputs"})
    return keyed_loader(
        ScenePairs(pairs, classes, pipeline, test_mode=False),
        batch_size=batch_size,
        seed=seed,
        num_workers=num_workers,
        collate=pseudo_collate,
    )


def test_loader(
    pairs: Sequence[Pair], classes: Sequence[str], protocol: SegmentationProtocol, *, num_workers: int
) -> DataLoader[Any]:
    """Every image once, in order, one at a time: their sizes differ."""
    # Labels after the resize: they are compared at their own size.
    resize = {"type": "Resize", "scale": (_WIDEST * protocol.crop_size, protocol.crop_size), "keep_ratio": True}
    pipeline = [LoadRgb(), resize, _labels(), {"type": "PackSegInputs"}]
    return DataLoader(
        ScenePairs(pairs, classes, pipeline, test_mode=True),
        batch_size=1,
        shuffle=False,
        num_workers=num_workers,
        collate_fn=pseudo_collate,
    )


def views_loader(
    pairs: Sequence[Pair], classes: Sequence[str], protocol: SegmentationProtocol, *, num_workers: int
) -> DataLoader[Any]:
    """Every image once, in order, as all its views: the scales of the protocol, each plain and mirrored."""
    side = protocol.crop_size
    scales = [(round(_WIDEST * side * scale), round(side * scale)) for scale in protocol.test_scales]
    views = {
        "type": "TestTimeAug",
        "transforms": [
            [{"type": "Resize", "scale": scale, "keep_ratio": True} for scale in scales],
            [{"type": "RandomFlip", "prob": chance, "direction": "horizontal"} for chance in (0.0, 1.0)],
            # Labels after resize and flip: they are compared as they are.
            [_labels()],
            [{"type": "PackSegInputs"}],
        ],
    }
    return DataLoader(
        ScenePairs(pairs, classes, [LoadRgb(), views], test_mode=True),
        batch_size=1,
        shuffle=False,
        num_workers=num_workers,
        collate_fn=pseudo_collate,
    )
