"""``ade20k_seg``: fine-tune UPerNet on the checkpoint's encoder and measure mean IoU and accuracies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int, UInt8

from unveil_evalharness.compat import third_party_warnings
from unveil_evalharness.engine.batch import BatchPlan, plan_batch
from unveil_evalharness.engine.encoder import fresh_encoder
from unveil_evalharness.engine.runner import train_and_evaluate
from unveil_evalharness.engine.session import Session, session
from unveil_evalharness.errors import DataError, HarnessError, ProtocolError
from unveil_evalharness.gallery import choose
from unveil_evalharness.task import Metric, MetricSpec, TaskContext, TaskResult
from unveil_evalharness.tasks.ade20k_seg import layout, metrics
from unveil_evalharness.tasks.ade20k_seg.config import SegmentationProtocol
from unveil_evalharness.tasks.ade20k_seg.pictures import segmentation_pictures
from unveil_evalharness.tasks.ade20k_seg.protocols import protocol_for
from unveil_evalharness.tasks.dense.subset import keyed_subset
from unveil_evalharness.tasks.dense.training import is_plain, training_plan

if TYPE_CHECKING:
    import unveil_backbones.manifest

__all__ = ["Ade20kSegmentation", "MetricMismatchError"]

_MMSEG_ROUNDING = 6e-5  # mmseg rounds percentages to two digits
_WORKERS_BESIDE_GPU = 4
_SCORES: Mapping[str, Callable[[metrics.Scores], float]] = {
    "mIoU": lambda scores: scores.mean_iou,
    "mAcc": lambda scores: scores.mean_accuracy,
    "aAcc": lambda scores: scores.accuracy,
}


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    """What training and both tests gave."""

    coverage: float
    counts: metrics.ImageCounts
    views: metrics.ImageCounts
    """Counts of the multi-scale test."""
    confusion: Int[np.ndarray, "c c"]
    label_maps: Mapping[str, UInt8[np.ndarray, "h w"]]


class Ade20kSegmentation:
    """UPerNet; mean intersection over union (mIoU), mean class accuracy (mAcc) and pixel accuracy (aAcc).

    Each from one view of an image, and with ``_ms`` from the average over several scales, plain and mirrored.
    """

    name = "ade20k_seg"
    version = 2
    description = "semantic segmentation, UPerNet on data in ADE20K's layout"
    metrics = tuple(
        MetricSpec(name=f"ade20k_seg.{name}{suffix}", main=(name, suffix) == ("mIoU", ""))
        for suffix in ("", "_ms")
        for name in _SCORES
    )
    requires = ("mmengine", "mmcv", "mmseg", "ftfy", "regex")

    def protocol(self, suite: str) -> SegmentationProtocol:
        """The protocol of a suite, or of a published length: ``80k``, ``160k``."""
        return protocol_for(suite)

    def expected_time(self, suite: str) -> str:
        """For one checkpoint."""
        if suite == "quick":
            return "1 min on one CPU core"
        if suite == "short":
            return "about 1 h on one GPU (estimate)"
        protocol = protocol_for(suite)
        return f"{protocol.schedule.max_iters:,} steps of {protocol.batch_size} crops: for GPUs, time not measured yet"

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Every image encoder can be fine-tuned."""
        del manifest
        return None

    def data_hash(self, data_root: Path) -> str:
        """See `layout.data_hash`."""
        return layout.data_hash(data_root)

    def num_images(self, data_root: Path, protocol: SegmentationProtocol) -> int:
        """Validation images that the protocol tests."""
        images = len(layout.read_pairs(data_root, "val"))
        return images if protocol.num_val_images is None else min(images, protocol.num_val_images)

    def run(self, context: TaskContext) -> TaskResult:
        """Trains, predicts and measures.

        The baseline predicts the commonest class of the training pixels everywhere.

        Raises:
            DataError: the data is missing, damaged or inconsistent; before training wherever that can be seen.
            GateError: the segmenter's encoder is not the checkpoint's.
        """
        data = _prepare(context)
        with session(scope="mmseg", work_dir=context.work_dir, seed=context.seed) as opened, third_party_warnings():
            found = _train(context, opened, data)
        baseline = metrics.scores(metrics.majority_counts(data.train_pixels, data.val_pixels))
        samples = metrics.per_image([pair.name for pair in data.val], found.counts, found.views)
        return TaskResult(
            metrics=(
                *_metrics("", found.counts, baseline, context),
                *_metrics("_ms", found.views, baseline, context),
            ),
            samples=samples,
            load_coverage=found.coverage,
            gallery=segmentation_pictures(data.val, found.label_maps, data.classes, samples),
            tables={
                "per_class": metrics.per_class(data.classes, found.counts),
                "confusion": metrics.confusion_table(data.classes, found.confusion),
            },
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


def _train(context: TaskContext, opened: Session, data: _Data) -> _Outcome:
    """Trains once and tests twice, at one scale and at several."""
    from unveil_evalharness.tasks.ade20k_seg import data as loaders
    from unveil_evalharness.tasks.ade20k_seg import model
    from unveil_evalharness.tasks.ade20k_seg.collector import CountingIoU
    from unveil_evalharness.tasks.ade20k_seg.views import count_views
    from unveil_evalharness.tasks.dense.backbone import check_encoder

    protocol, checkpoint = context.protocol, context.checkpoint
    tuning = protocol.plain if is_plain(checkpoint.encoder) else protocol.hierarchical
    encoder = fresh_encoder(checkpoint.encoder, drop_path=tuning.drop_path)
    segmenter: Any = model.build_segmenter(
        encoder, protocol, preprocessing=checkpoint.manifest.preprocessing, num_classes=len(data.classes)
    )
    coverage = check_encoder(checkpoint.encoder, segmenter, image_size=protocol.crop_size)
    batch = _plan_batch(context)
    workers = 0 if context.device == "cpu" else _WORKERS_BESIDE_GPU
    shown = [str(data.val[position].image) for position in choose([pair.name for pair in data.val])]
    metric = CountingIoU(len(data.classes), keep=shown)
    reported = train_and_evaluate(
        opened,
        model=segmenter,
        encoder=encoder,
        train_loader=loaders.train_loader(
            data.train, data.classes, protocol, batch_size=batch.size, seed=context.seed, num_workers=workers
        ),
        val_loader=loaders.test_loader(data.val, data.classes, protocol, num_workers=workers),
        evaluator=metric,
        plan=training_plan(protocol.schedule, tuning, accumulate=batch.accumulate, precision=protocol.precision),
        device=context.device,
        progress=context.progress,
        title="ade20k_seg",
    )
    assert metric.counts is not None, "mmengine's evaluator computes every metric it was given"
    assert metric.confusion is not None
    views, reported_views = count_views(
        segmenter,
        loaders.views_loader(data.val, data.classes, protocol, num_workers=workers),
        CountingIoU(len(data.classes)),
        progress=context.progress,
    )
    _check_against_mmseg(metrics.scores(metric.counts), reported)
    _check_against_mmseg(metrics.scores(views), reported_views)
    return _Outcome(
        coverage=coverage,
        counts=metric.counts,
        views=views,
        confusion=metric.confusion,
        label_maps=metric.label_maps,
    )


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


def _metrics(suffix: str, counts: metrics.ImageCounts, baseline: metrics.Scores, context: TaskContext) -> list[Metric]:
    value = metrics.scores(counts)
    error = metrics.standard_errors(counts, num_resamples=context.protocol.num_resamples, seed=context.seed)
    return [
        Metric(
            name=f"ade20k_seg.{name}{suffix}",
            value=of(value),
            baseline=of(baseline),
            standard_error=None if error is None else of(error),
            n=len(counts.labelled),
        )
        for name, of in _SCORES.items()
    ]


def _check_against_mmseg(value: metrics.Scores, reported: Mapping[str, float]) -> None:
    for name, of in _SCORES.items():
        ours, theirs = of(value), reported[name] / 100
        if not abs(ours - theirs) <= _MMSEG_ROUNDING:
            raise MetricMismatchError(
                f"{name} is {ours:.5f} by our count and {theirs:.5f} by mmseg's IoUMetric; they must agree: please "
                "report this with the versions that `evalharness doctor` prints"
            )
