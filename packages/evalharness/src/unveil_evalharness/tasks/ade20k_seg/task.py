"""``ade20k_seg``: fine-tune UPerNet on the checkpoint's encoder and measure mean IoU and pixel accuracy."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from unveil_evalharness.compat import third_party_warnings
from unveil_evalharness.engine.batch import BatchPlan, plan_batch
from unveil_evalharness.engine.encoder import fresh_encoder
from unveil_evalharness.engine.optim import OptimiserSettings
from unveil_evalharness.engine.runner import TrainingPlan, train_and_evaluate
from unveil_evalharness.engine.session import Session, session
from unveil_evalharness.errors import DataError, HarnessError, ProtocolError
from unveil_evalharness.task import Metric, MetricSpec, TaskContext, TaskResult
from unveil_evalharness.tasks.ade20k_seg import layout, metrics
from unveil_evalharness.tasks.ade20k_seg.config import SegmentationProtocol, protocol_for
from unveil_evalharness.tasks.dense.subset import keyed_subset

if TYPE_CHECKING:
    import unveil_backbones.manifest

__all__ = ["Ade20kSegmentation", "MetricMismatchError"]

_MMSEG_ROUNDING = 6e-5  # mmseg rounds percentages to two digits
_WORKERS_BESIDE_GPU = 4


class MetricMismatchError(HarnessError):
    """Our score and mmseg's differ: a defect of the harness or an untested library version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Data:
    """What one run trains and measures on."""

    classes: tuple[str, ...]
    train: list[layout.Pair]
    val: list[layout.Pair]
    train_pixels: Int[np.ndarray, "images c"]
    val_pixels: Int[np.ndarray, "n c"]


class Ade20kSegmentation:
    """UPerNet; mean intersection over union (mIoU) and pixel accuracy (aAcc)."""

    name = "ade20k_seg"
    version = 1
    description = "semantic segmentation, UPerNet on data in ADE20K's layout"
    metrics = (MetricSpec(name="ade20k_seg.mIoU", main=True), MetricSpec(name="ade20k_seg.aAcc"))
    requires = ("mmengine", "mmcv", "mmseg", "ftfy", "regex")

    def protocol(self, suite: str) -> SegmentationProtocol:
        """The protocol of a suite: ``quick`` for one CPU core, ``full`` as published."""
        return protocol_for(suite)

    def expected_time(self, suite: str) -> str:
        """For one checkpoint."""
        times = {"quick": "35 s on one CPU core", "short": "about 1 h on one GPU (estimate)"}
        return times.get(suite, "160,000 steps: for GPUs, time not measured yet")

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Every image encoder can be fine-tuned."""
        del manifest
        return None

    def data_hash(self, data_root: Path) -> str:
        """See `layout.data_hash`."""
        return layout.data_hash(data_root)

    def run(self, context: TaskContext) -> TaskResult:
        """Trains, predicts and measures.

        The baseline predicts the commonest class of the training pixels everywhere.

        Raises:
            DataError: the data is missing, damaged or inconsistent; before training wherever that can be seen.
            GateError: the segmenter's encoder is not the checkpoint's.
        """
        data = _prepare(context)
        with session(scope="mmseg", work_dir=context.work_dir, seed=context.seed) as opened, third_party_warnings():
            coverage, counts, reported = _train(context, opened, data)
        value = metrics.scores(counts)
        _check_against_mmseg(value, reported)
        baseline = metrics.scores(metrics.majority_counts(data.train_pixels, data.val_pixels))
        error = metrics.standard_errors(counts, num_resamples=context.protocol.num_resamples, seed=context.seed)
        return TaskResult(
            metrics=(
                Metric(
                    name="ade20k_seg.mIoU",
                    value=value.mean_iou,
                    baseline=baseline.mean_iou,
                    standard_error=None if error is None else error.mean_iou,
                    n=len(data.val),
                ),
                Metric(
                    name="ade20k_seg.aAcc",
                    value=value.accuracy,
                    baseline=baseline.accuracy,
                    standard_error=None if error is None else error.accuracy,
                    n=len(data.val),
                ),
            ),
            samples=metrics.per_image([pair.name for pair in data.val], counts),
            load_coverage=coverage,
        )


def _prepare(context: TaskContext) -> _Data:
    protocol = context.protocol
    train, val = (layout.read_pairs(context.data_root, split) for split in ("train", "val"))
    classes = layout.class_names(context.data_root, [*train, *val])
    train, val = (
        [pairs[index] for index in keyed_subset([pair.name for pair in pairs], number, context.limit)]
        for pairs, number in ((train, protocol.num_train_images), (val, protocol.num_val_images))
    )
    data = _Data(
        classes=classes,
        train=train,
        val=val,
        train_pixels=layout.count_pixels(train, len(classes)),
        val_pixels=layout.count_pixels(val, len(classes)),
    )
    for name, pixels in (("training", data.train_pixels), ("validation", data.val_pixels)):
        if pixels.sum() == 0:
            raise DataError(
                f"none of the {len(pixels)} {name} label maps in use has a labelled pixel; use more (--limit)"
            )
    return data


def _train(context: TaskContext, opened: Session, data: _Data) -> tuple[float, metrics.ImageCounts, dict[str, float]]:
    """Load coverage, counts per validation image, and what mmseg's metric reports."""
    from unveil_evalharness.tasks.ade20k_seg import data as loaders
    from unveil_evalharness.tasks.ade20k_seg import model
    from unveil_evalharness.tasks.ade20k_seg.collector import CountingIoU
    from unveil_evalharness.tasks.dense.backbone import check_encoder

    protocol, checkpoint = context.protocol, context.checkpoint
    encoder = fresh_encoder(checkpoint.encoder, drop_path=protocol.drop_path)
    segmenter: Any = model.build_segmenter(
        encoder, protocol, preprocessing=checkpoint.manifest.preprocessing, num_classes=len(data.classes)
    )
    coverage = check_encoder(checkpoint.encoder, segmenter, image_size=protocol.crop_size)
    batch = _plan_batch(context)
    workers = 0 if context.device == "cpu" else _WORKERS_BESIDE_GPU
    metric = CountingIoU()
    reported = train_and_evaluate(
        opened,
        model=segmenter,
        encoder=encoder,
        train_loader=loaders.train_loader(
            data.train, data.classes, protocol, batch_size=batch.size, seed=context.seed, num_workers=workers
        ),
        val_loader=loaders.test_loader(data.val, data.classes, protocol, num_workers=workers),
        evaluator=metric,
        plan=_training_plan(protocol, accumulate=batch.accumulate),
        device=context.device,
        progress=context.progress,
        title="ade20k_seg",
    )
    assert metric.counts is not None, "mmengine's evaluator computes every metric it was given"
    return coverage, metric.counts, reported


def _plan_batch(context: TaskContext) -> BatchPlan:
    """How a step is split; batch normalisation needs two images and depends on the split."""
    batch = plan_batch(total=context.protocol.batch_size, requested=context.batch_size)
    if batch.size < 2:
        raise ProtocolError(
            "ade20k_seg normalises over the images of a pass and cannot train on one; use --batch-size 2"
        )
    if batch.accumulate > 1:
        context.log(
            f"ade20k_seg: batch normalisation sees {batch.size} images at a time instead of "
            f"{context.protocol.batch_size}; compare only with runs of the same --batch-size"
        )
    return batch


def _training_plan(protocol: SegmentationProtocol, *, accumulate: int) -> TrainingPlan:
    return TrainingPlan(
        max_iters=protocol.max_iters,
        optimiser=OptimiserSettings(
            lr=protocol.lr,
            weight_decay=protocol.weight_decay,
            layer_decay=protocol.layer_decay,
            warmup_iters=protocol.warmup_iters,
        ),
        accumulate=accumulate,
        precision=protocol.precision,
    )


def _check_against_mmseg(value: metrics.Scores, reported: dict[str, float]) -> None:
    for name, ours in (("mIoU", value.mean_iou), ("aAcc", value.accuracy)):
        theirs = reported[name] / 100
        if not abs(ours - theirs) <= _MMSEG_ROUNDING:
            raise MetricMismatchError(
                f"{name} is {ours:.5f} by our count and {theirs:.5f} by mmseg's IoUMetric; they must agree: please "
                "report this with the versions that `evalharness doctor` prints"
            )
