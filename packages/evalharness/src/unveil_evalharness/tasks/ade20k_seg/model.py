"""UPerNet around our encoder: the one file of this task that speaks to mmseg's registry."""

from typing import Any

from mmengine.config import ConfigDict
from mmseg.registry import MODELS
from torch import nn
from unveil_backbones import Encoder, FeaturePyramid, Preprocessing

from unveil_evalharness.tasks.ade20k_seg.config import SegmentationProtocol
from unveil_evalharness.tasks.ade20k_seg.layout import IGNORED
from unveil_evalharness.tasks.dense.backbone import PyramidBackbone

__all__ = ["build_segmenter"]

_POOLED_GRIDS = (1, 2, 3, 6)  # UPerNet's pyramid pooling (Xiao et al. 2018)
_STRIDE_16 = 2  # position of that map
_AUXILIARY_WEIGHT = 0.4
_BYTE = 255.0  # pixel values of mm pipelines


def build_segmenter(
    encoder: Encoder, protocol: SegmentationProtocol, *, preprocessing: Preprocessing, num_classes: int
) -> nn.Module:
    """UPerNet with freshly initialised heads on the given encoder, which becomes part of it.

    Args:
        encoder: carries the checkpoint's weights.
        protocol: sizes.
        preprocessing: how the checkpoint normalises pixels.
        num_classes: classes of the data.
    """
    pyramid = FeaturePyramid(encoder)
    side = (protocol.crop_size, protocol.crop_size)
    config = ConfigDict(
        type="EncoderDecoder",
        data_preprocessor={
            "type": "SegDataPreProcessor",
            "mean": [value * _BYTE for value in preprocessing.mean],
            "std": [value * _BYTE for value in preprocessing.std],
            "bgr_to_rgb": False,  # LoadRgb gives RGB
            "size": side,
            "pad_val": 0,
            "seg_pad_val": IGNORED,
            # No test image is smaller than the window.
            "test_cfg": {"size": side},
        },
        backbone={"type": PyramidBackbone, "pyramid": pyramid},
        decode_head={
            "type": "UPerHead",
            "in_channels": list(pyramid.channels),
            "in_index": [0, 1, 2, 3],
            "pool_scales": list(_POOLED_GRIDS),
            **_head(protocol.channels, protocol.dropout, num_classes, loss_weight=1.0),
        },
        auxiliary_head=_auxiliary(pyramid.channels[_STRIDE_16], protocol, num_classes),
        train_cfg={},
        test_cfg={"mode": "slide", "crop_size": side, "stride": (protocol.stride, protocol.stride)},
    )
    segmenter = MODELS.build(config)
    segmenter.init_weights()
    return segmenter


def _auxiliary(in_channels: int, protocol: SegmentationProtocol, num_classes: int) -> dict[str, Any] | None:
    if protocol.auxiliary_channels == 0:
        return None
    return {
        "type": "FCNHead",
        "in_channels": in_channels,
        "in_index": _STRIDE_16,
        "num_convs": 1,
        "concat_input": False,
        **_head(protocol.auxiliary_channels, protocol.dropout, num_classes, loss_weight=_AUXILIARY_WEIGHT),
    }


def _head(channels: int, dropout: float, num_classes: int, *, loss_weight: float) -> dict[str, Any]:
    return {
        "channels": channels,
        "dropout_ratio": dropout,
        "num_classes": num_classes,
        # mmseg would advise one output for two classes.
        "out_channels": num_classes,
        # The papers' synchronised batch normalisation, in one process. Normalising each image by itself would keep
        # what all images share in the features of a hardly trained encoder, and learns an order slower.
        "norm_cfg": {"type": "BN", "requires_grad": True},
        "align_corners": False,
        "ignore_index": IGNORED,
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": loss_weight},
    }
