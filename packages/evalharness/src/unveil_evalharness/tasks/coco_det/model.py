"""Mask R-CNN around our encoder: the one file of this task that speaks to mmdet's registry."""

from typing import Any

from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import nn
from unveil_backbones import Encoder, FeaturePyramid, Preprocessing

from unveil_evalharness.tasks.coco_det.config import DetectionProtocol, HeadSizes
from unveil_evalharness.tasks.coco_det.neck import SimpleNeck
from unveil_evalharness.tasks.dense.backbone import PyramidBackbone
from unveil_evalharness.tasks.dense.norm import LayerNorm2d
from unveil_evalharness.tasks.dense.training import is_plain

__all__ = ["build_detector"]

_STRIDES = (4, 8, 16, 32)
_MASK_THRESHOLD = 0.5
_BYTE = 255.0  # pixel values of mm pipelines
_NORM_EPSILON = 1e-6
_NUM_LEVELS = 5  # strides 4 to 64


def build_detector(
    encoder: Encoder, protocol: DetectionProtocol, *, preprocessing: Preprocessing, num_classes: int
) -> nn.Module:
    """Mask R-CNN with freshly initialised heads on the given encoder, which becomes part of it.

    Args:
        encoder: carries the checkpoint's weights.
        protocol: sizes and thresholds.
        preprocessing: how the checkpoint normalises pixels.
        num_classes: categories of the data.
    """
    pyramid = FeaturePyramid(encoder)
    heads = protocol.heads
    config = ConfigDict(
        type="MaskRCNN",
        data_preprocessor={
            "type": "DetDataPreprocessor",
            "mean": [value * _BYTE for value in preprocessing.mean],
            "std": [value * _BYTE for value in preprocessing.std],
            "bgr_to_rgb": False,  # LoadRgb gives RGB
            "pad_mask": True,
            "pad_size_divisor": protocol.image_size,
        },
        backbone={"type": PyramidBackbone, "pyramid": pyramid},
        neck=_neck(pyramid, heads),
        rpn_head=_proposal_head(heads),
        roi_head=_region_head(heads, num_classes),
        train_cfg=_training(heads),
        test_cfg=_testing(protocol),
    )
    detector = MODELS.build(config)
    detector.init_weights()
    return detector


def _neck(pyramid: FeaturePyramid, heads: HeadSizes) -> dict[str, Any]:
    """ViTDet's neck for a plain encoder; for a hierarchical one a feature pyramid network (Lin et al. 2017)."""
    sizes = {"in_channels": list(pyramid.channels), "out_channels": heads.channels}
    if is_plain(pyramid.encoder):
        return {"type": SimpleNeck, "layer_norm": heads.layer_norm, **sizes}
    return {"type": "FPN", "num_outs": _NUM_LEVELS, "norm_cfg": _norm(heads), **sizes}


def _norm(heads: HeadSizes) -> dict[str, Any] | None:
    return {"type": LayerNorm2d, "eps": _NORM_EPSILON} if heads.layer_norm else None


def _box_coder(*deviations: float) -> dict[str, Any]:
    return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": list(deviations)}


def _proposal_head(heads: HeadSizes) -> dict[str, Any]:
    return {
        "type": "RPNHead",
        "in_channels": heads.channels,
        "feat_channels": heads.channels,
        "num_convs": heads.num_proposal_convs,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "scales": [heads.anchor_scale],
            "ratios": [0.5, 1.0, 2.0],
            "strides": [*_STRIDES, 2 * _STRIDES[-1]],
        },
        "bbox_coder": _box_coder(1.0, 1.0, 1.0, 1.0),
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
        "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
    }


def _region_head(heads: HeadSizes, num_classes: int) -> dict[str, Any]:
    def extractor(cells: int) -> dict[str, Any]:
        return {
            "type": "SingleRoIExtractor",
            "roi_layer": {"type": "RoIAlign", "output_size": cells, "sampling_ratio": 0},
            "out_channels": heads.channels,
            "featmap_strides": list(_STRIDES),
        }

    return {
        "type": "StandardRoIHead",
        "bbox_roi_extractor": extractor(heads.box_cells),
        "bbox_head": {
            "type": "ConvFCBBoxHead",
            "num_shared_convs": heads.num_box_convs,
            "num_shared_fcs": heads.num_box_layers,
            "in_channels": heads.channels,
            "conv_out_channels": heads.channels,
            "norm_cfg": _norm(heads),
            "fc_out_channels": heads.box_channels,
            "roi_feat_size": heads.box_cells,
            "num_classes": num_classes,
            "bbox_coder": _box_coder(0.1, 0.1, 0.2, 0.2),
            "reg_class_agnostic": False,
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
            "loss_bbox": {"type": "L1Loss", "loss_weight": 1.0},
        },
        "mask_roi_extractor": extractor(heads.mask_cells),
        "mask_head": {
            "type": "FCNMaskHead",
            "num_convs": heads.num_mask_convs,
            "in_channels": heads.channels,
            "conv_out_channels": heads.channels,
            "norm_cfg": _norm(heads),
            "num_classes": num_classes,
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0},
        },
    }


def _assigner(positive: float, negative: float) -> dict[str, Any]:
    return {
        "type": "MaxIoUAssigner",
        "pos_iou_thr": positive,
        "neg_iou_thr": negative,
        "min_pos_iou": negative,
        "match_low_quality": True,
        "ignore_iof_thr": -1,
    }


def _sampler(num: int, fraction: float, *, with_objects: bool) -> dict[str, Any]:
    return {
        "type": "RandomSampler",
        "num": num,
        "pos_fraction": fraction,
        "neg_pos_ub": -1,
        "add_gt_as_proposals": with_objects,
    }


def _proposals(before: int, after: int) -> dict[str, Any]:
    return {"nms_pre": before, "max_per_img": after, "nms": {"type": "nms", "iou_threshold": 0.7}, "min_bbox_size": 0}


def _training(heads: HeadSizes) -> dict[str, Any]:
    """Thresholds of Faster and Mask R-CNN, as in mmdet's ``mask-rcnn_r50_fpn.py``."""
    return {
        "rpn": {
            "assigner": _assigner(0.7, 0.3),
            "sampler": _sampler(heads.rpn_samples, 0.5, with_objects=False),
            "allowed_border": -1,
            "pos_weight": -1,
            "debug": False,
        },
        "rpn_proposal": _proposals(heads.proposals_before_nms, heads.train_proposals),
        "rcnn": {
            "assigner": _assigner(0.5, 0.5),
            "sampler": _sampler(heads.region_samples, 0.25, with_objects=True),
            "mask_size": 2 * heads.mask_cells,
            "pos_weight": -1,
            "debug": False,
        },
    }


def _testing(protocol: DetectionProtocol) -> dict[str, Any]:
    return {
        "rpn": _proposals(min(protocol.heads.proposals_before_nms, 1000), protocol.heads.test_proposals),
        "rcnn": {
            "score_thr": protocol.score_threshold,
            "nms": {"type": "nms", "iou_threshold": 0.5},
            "max_per_img": protocol.max_detections,
            "mask_thr_binary": _MASK_THRESHOLD,
        },
    }
