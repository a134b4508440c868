"""``coco_det``: fine-tune Mask R-CNN on the checkpoint's encoder and measure COCO average precision."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unveil_evalharness.compat import third_party_warnings
from unveil_evalharness.engine.batch import plan_batch
from unveil_evalharness.engine.encoder import fresh_encoder
from unveil_evalharness.engine.runner import train_and_evaluate
from unveil_evalharness.engine.session import Session, session
from unveil_evalharness.errors import HarnessError
from unveil_evalharness.task import Metric, MetricSpec, TaskContext, TaskResult
from unveil_evalharness.tasks.coco_det import annotations, metrics
from unveil_evalharness.tasks.coco_det.config import DetectionProtocol
from unveil_evalharness.tasks.coco_det.matches import KINDS, Area, Kind, Matches, per_image
from unveil_evalharness.tasks.coco_det.matching import read_matches
from unveil_evalharness.tasks.coco_det.pictures import detection_pictures
from unveil_evalharness.tasks.coco_det.protocols import protocol_for
from unveil_evalharness.tasks.dense.training import is_plain, training_plan

if TYPE_CHECKING:
    import unveil_backbones.manifest

__all__ = ["CocoDetection", "MetricMismatchError"]

_PREDICTIONS = "predictions"
_MMDET_ROUNDING = 6e-4  # mmdet rounds its averages to three digits
_WORKERS_BESIDE_GPU = 4


class MetricMismatchError(HarnessError):
    """Our average precision and mmdet's differ: a defect of the harness or an untested library version."""


class CocoDetection:
    """Mask R-CNN with a feature pyramid; box and mask average precision over IoU 0.50 to 0.95."""

    name = "coco_det"
    version = 2
    description = "object detection and instance segmentation, Mask R-CNN on COCO-format data"
    metrics = tuple(
        MetricSpec(name=f"coco_det.{kind}_{name}", main=(kind, name) == ("bbox", "mAP"))
        for kind in KINDS
        for name in metrics.AVERAGES
    )
    requires = ("mmengine", "mmcv", "mmdet", "pycocotools")

    def protocol(self, suite: str) -> DetectionProtocol:
        """The protocol of a suite, or of a published schedule: ``1x``, ``3x``, ``100ep``."""
        return protocol_for(suite)

    def expected_time(self, suite: str) -> str:
        """For one checkpoint."""
        if suite == "quick":
            return "1 min on one CPU core"
        if suite == "short":
            return "about 1 h on one GPU (estimate)"
        protocol = protocol_for(suite)
        return f"{protocol.schedule.max_iters:,} steps of {protocol.batch_size} images: for GPUs, time not measured yet"

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Every image encoder can be fine-tuned."""
        del manifest
        return None

    def data_hash(self, data_root: Path) -> str:
        """See `annotations.data_hash`."""
        return annotations.data_hash(data_root)

    def num_images(self, data_root: Path, protocol: DetectionProtocol) -> int:
        """Validation images that the protocol tests."""
        images = len(annotations.read_split(data_root, "val").images)
        return images if protocol.num_val_images is None else min(images, protocol.num_val_images)

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
            found = {kind: read_matches(val.annotation_file, _predictions(context, kind), kind) for kind in KINDS}
            samples = per_image(found["bbox"]["all"], found["segm"]["all"])
            gallery = detection_pictures(val.annotation_file, _predictions(context, "segm"), val.image_dir, samples)
        return TaskResult(
            metrics=tuple(one for kind in KINDS for one in _metrics(kind, found[kind], reported, context)),
            samples=samples,
            load_coverage=coverage,
            gallery=gallery,
            tables={"per_class": metrics.per_class({kind: found[kind]["all"] for kind in KINDS})},
        )


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
    tuning = protocol.plain if is_plain(checkpoint.encoder) else protocol.hierarchical
    encoder = fresh_encoder(checkpoint.encoder, drop_path=tuning.drop_path)
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
            metric=list(KINDS),
            outfile_prefix=str(context.work_dir / _PREDICTIONS),
        ),
        plan=training_plan(protocol.schedule, tuning, accumulate=batch.accumulate, precision=protocol.precision),
        device=context.device,
        progress=context.progress,
        title="coco_det",
    )
    return coverage, reported


def _predictions(context: TaskContext, kind: Kind) -> Path:
    """The file that mmdet's CocoMetric writes for an `outfile_prefix`."""
    return context.work_dir / f"{_PREDICTIONS}.{kind}.json"


def _metrics(
    kind: Kind, found: Mapping[Area, Matches], reported: Mapping[str, float], context: TaskContext
) -> list[Metric]:
    """COCO's averages of one kind of overlap; 0 over no image where the data have no object of a size."""
    values = metrics.averages(found)
    errors = metrics.standard_errors(found, num_resamples=context.protocol.num_resamples, seed=context.seed)
    result = []
    for name, (area, _) in metrics.AVERAGES.items():
        _check_against_mmdet(f"{kind}_{name}", values[name], reported)
        defined = bool(np.isfinite(values[name]))
        populated = np.sum([category.objects for category in found[area].categories], axis=0)
        num_images = len(found[area].image_ids) if area == "all" else int((populated > 0).sum())
        result.append(
            Metric(
                name=f"coco_det.{kind}_{name}",
                value=values[name] if defined else 0.0,
                baseline=0.0,
                standard_error=errors[name] if defined else None,
                n=num_images,
            )
        )
    return result


def _check_against_mmdet(name: str, value: float, reported: Mapping[str, float]) -> None:
    # mmdet reports nothing at all when the detector found nothing, and -1 without an object of that size.
    theirs = reported.get(f"coco/{name}", 0.0)
    ours = value if np.isfinite(value) else min(theirs, 0.0)
    if not abs(ours - theirs) <= _MMDET_ROUNDING:
        raise MetricMismatchError(
            f"{name} is {value:.4f} by our count and {theirs:.4f} by mmdet's CocoMetric; they must agree: please "
            "report this with the versions that `evalharness doctor` prints"
        )
