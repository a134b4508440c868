"""``coco_det``: fine-tune Mask R-CNN on the checkpoint's encoder and measure COCO average precision."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unveil_evalharness.compat import third_party_warnings
from unveil_evalharness.engine.batch import plan_batch
from unveil_evalharness.engine.encoder import fresh_encoder
from unveil_evalharness.engine.optim import OptimiserSettings
from unveil_evalharness.engine.runner import TrainingPlan, train_and_evaluate
from unveil_evalharness.engine.session import Session, session
from unveil_evalharness.errors import HarnessError
from unveil_evalharness.task import Metric, MetricSpec, TaskContext, TaskResult
from unveil_evalharness.tasks.coco_det import annotations, metrics
from unveil_evalharness.tasks.coco_det.config import DetectionProtocol, protocol_for

if TYPE_CHECKING:
    import unveil_backbones.manifest

__all__ = ["CocoDetection", "MetricMismatchError"]

_KINDS: tuple[metrics.Kind, ...] = ("bbox", "segm")
_PREDICTIONS = "predictions"
_MMDET_ROUNDING = 6e-4  # mmdet rounds its averages to three digits
_WORKERS_BESIDE_GPU = 4


class MetricMismatchError(HarnessError):
    """Our average precision and mmdet's differ: a defect of the harness or an untested library version."""


class CocoDetection:
    """Mask R-CNN with a feature pyramid; box and mask average precision over IoU 0.50 to 0.95."""

    name = "coco_det"
    version = 1
    description = "object detection and instance segmentation, Mask R-CNN on COCO-format data"
    metrics = (MetricSpec(name="coco_det.bbox_mAP", main=True), MetricSpec(name="coco_det.segm_mAP"))
    requires = ("mmengine", "mmcv", "mmdet", "pycocotools")

    def protocol(self, suite: str) -> DetectionProtocol:
        """The protocol of a suite: ``quick`` for one CPU core, ``full`` as published."""
        return protocol_for(suite)

    def expected_time(self, suite: str) -> str:
        """For one checkpoint."""
        times = {"quick": "1 min on one CPU core", "short": "about 1 h on one GPU (estimate)"}
        return times.get(suite, "100 epochs: for GPUs, time not measured yet")

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Every image encoder can be fine-tuned."""
        del manifest
        return None

    def data_hash(self, data_root: Path) -> str:
        """See `annotations.data_hash`."""
        return annotations.data_hash(data_root)

    def run(self, context: TaskContext) -> TaskResult:
        """Trains, predicts and measures.

        The baseline is the empty prediction, whose average precision is 0.

        Raises:
            DataError: the data is missing, damaged or inconsistent; before training wherever that can be seen.
            GateError: the detector's encoder is not the checkpoint's.
        """
        train, val = _prepare(context)
        with session(scope="mmdet", work_dir=context.work_dir, seed=context.seed) as opened, third_party_warnings():
            coverage, reported = _train(context, opened, train, val)
            # Inside, because pycocotools prints.
            found = {
                kind: metrics.read_matches(val.annotation_file, _predictions(context, kind), kind) for kind in _KINDS
            }
        values = tuple(_metric(kind, found[kind], reported, context) for kind in _KINDS)
        samples = metrics.per_image(found["bbox"], found["segm"])
        return TaskResult(metrics=values, samples=samples, load_coverage=coverage)


def _prepare(context: TaskContext) -> tuple[annotations.SplitFiles, annotations.SplitFiles]:
    """The checked annotation files of this run, in its work folder."""
    protocol = context.protocol
    splits = [annotations.read_split(context.data_root, name) for name in ("train", "val")]
    annotations.same_categories(*splits)
    folder = context.work_dir / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (protocol.num_train_images, protocol.num_val_images)
    train, val = (
        annotations.write_split(
            split,
            folder / f"{name}.json",
            sizes=(number, context.limit),
            with_objects=name == "train",
            log=context.log,
        )
        for split, name, number in zip(splits, ("train", "val"), wanted, strict=True)
    )
    return train, val


def _train(
    context: TaskContext, opened: Session, train: annotations.SplitFiles, val: annotations.SplitFiles
) -> tuple[float, dict[str, float]]:
    """Load coverage, and what mmdet's metric reports after training."""
    from mmdet.evaluation import CocoMetric

    from unveil_evalharness.tasks.coco_det import data, model
    from unveil_evalharness.tasks.dense.backbone import check_encoder

    protocol, checkpoint = context.protocol, context.checkpoint
    encoder = fresh_encoder(checkpoint.encoder, drop_path=protocol.drop_path)
    detector: Any = model.build_detector(
        encoder, protocol, preprocessing=checkpoint.manifest.preprocessing, num_classes=len(train.classes)
    )
    coverage = check_encoder(checkpoint.encoder, detector, image_size=protocol.image_size)
    batch = plan_batch(total=protocol.batch_size, requested=context.batch_size)
    workers = 0 if context.device == "cpu" else _WORKERS_BESIDE_GPU
    reported = train_and_evaluate(
        opened,
        model=detector,
        encoder=encoder,
        train_loader=data.train_loader(train, protocol, batch_size=batch.size, seed=context.seed, num_workers=workers),
        val_loader=data.test_loader(val, protocol, batch_size=batch.size, num_workers=workers),
        evaluator=CocoMetric(
            ann_file=str(val.annotation_file),
            metric=list(_KINDS),
            outfile_prefix=str(context.work_dir / _PREDICTIONS),
        ),
        plan=_training_plan(protocol, accumulate=batch.accumulate),
        device=context.device,
        progress=context.progress,
        title="coco_det",
    )
    return coverage, reported


def _training_plan(protocol: DetectionProtocol, *, accumulate: int) -> TrainingPlan:
    """How the engine trains this protocol."""
    return TrainingPlan(
        max_iters=protocol.max_iters,
        optimiser=OptimiserSettings(
            lr=protocol.lr,
            weight_decay=protocol.weight_decay,
            layer_decay=protocol.layer_decay,
            warmup_iters=protocol.warmup_iters,
            clip_norm=protocol.clip_norm,
        ),
        accumulate=accumulate,
        precision=protocol.precision,
    )


def _predictions(context: TaskContext, kind: metrics.Kind) -> Path:
    """The file that mmdet's CocoMetric writes for an `outfile_prefix`."""
    return context.work_dir / f"{_PREDICTIONS}.{kind}.json"


def _metric(
    kind: metrics.Kind, matches: metrics.Matches, reported: Mapping[str, float], context: TaskContext
) -> Metric:
    num_images = len(matches.image_ids)
    value = metrics.average_precision(matches, np.ones(num_images, dtype=np.int64))
    # mmdet reports nothing at all when the detector found nothing.
    theirs = reported.get(f"coco/{kind}_mAP", 0.0)
    if not abs(value - theirs) <= _MMDET_ROUNDING:
        raise MetricMismatchError(
            f"{kind} average precision is {value:.4f} by our count and {theirs:.4f} by mmdet's CocoMetric; they must "
            "agree: please report this with the versions that `evalharness doctor` prints"
        )
    error = metrics.standard_error(matches, num_resamples=context.protocol.num_resamples, seed=context.seed)
    return Metric(name=f"coco_det.{kind}_mAP", value=value, baseline=0.0, standard_error=error, n=num_images)
