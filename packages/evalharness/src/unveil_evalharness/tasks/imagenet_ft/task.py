"""``imagenet_ft``: fine-tune the whole encoder on an ImageFolder and test it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader

from unveil_evalharness.engine.batch import BatchPlan, plan_batch
from unveil_evalharness.engine.encoder import fresh_encoder
from unveil_evalharness.engine.optim import OptimiserSettings
from unveil_evalharness.engine.parity import check_forward_parity, check_load_coverage, probe_image
from unveil_evalharness.engine.runner import TrainingPlan, train_and_evaluate
from unveil_evalharness.engine.session import session
from unveil_evalharness.engine.stream import keyed_loader
from unveil_evalharness.errors import ProtocolError
from unveil_evalharness.task import Metric, MetricSpec, TaskContext, TaskResult
from unveil_evalharness.tasks.imagenet_ft import metrics
from unveil_evalharness.tasks.imagenet_ft.config import ImagenetProtocol, protocol_for
from unveil_evalharness.tasks.imagenet_ft.data import FolderImages, ImageFolder, balanced, folder_hash, read_folders
from unveil_evalharness.tasks.imagenet_ft.transforms import image_size, test_transform, training_transform

if TYPE_CHECKING:
    import polars
    import unveil_backbones.manifest

    import unveil_evalharness.tasks.imagenet_ft.model

__all__ = ["ImagenetFineTune"]

Collate = Callable[[list[Any]], Any]

_TOP = 5
_CHECKPOINTS_PER_RUN = 20
_FEWEST_STEPS_BETWEEN_CHECKPOINTS = 100


class ImagenetFineTune:
    """Top-1 and top-5 accuracy after end-to-end fine-tuning.

    Top-5 is left out where there are five classes or fewer: it would be 1 whatever the model says. The baseline names
    the most frequent training classes for every image.
    """

    name = "imagenet_ft"
    version = 1
    description = "image classification by end-to-end fine-tuning on an ImageFolder"
    metrics = (
        MetricSpec(name="imagenet_ft.acc1", main=True),
        MetricSpec(name="imagenet_ft.acc5"),
    )
    requires = ("mmengine", "timm")

    def protocol(self, suite: str) -> ImagenetProtocol:
        """The protocol of a suite; see `config.quick` and `config.full`."""
        return protocol_for(suite)

    def expected_time(self, suite: str) -> str:
        """For one checkpoint and seed."""
        protocol = protocol_for(suite)
        if protocol.unit == "epochs":
            return f"{protocol.duration} epochs: for GPUs, time not measured yet"
        return "25 s on one CPU core (64-pixel images, *_tiny encoders)"

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Every image encoder can be fine-tuned."""
        del manifest

    def data_hash(self, data_root: Path) -> str:
        """See `data.folder_hash`."""
        return folder_hash(data_root)

    def run(self, context: TaskContext) -> TaskResult:
        """Fine-tunes once and tests once.

        Raises:
            DataError: images are missing, unreadable or differently labelled in train and val.
            GateError: the classifier does not hold the checkpoint's encoder.
            ProtocolError: ``--batch-size`` does not fit the protocol.
            DivergedError: the loss is not a number.
        """
        protocol: ImagenetProtocol = context.protocol
        all_train, all_val = read_folders(context.data_root)
        train = balanced(balanced(all_train, protocol.max_train_images), context.limit)
        val = balanced(balanced(all_val, protocol.max_val_images), context.limit)
        context.log(f"{len(train.images)} training and {len(val.images)} test images of {len(train.classes)} classes")
        with session(scope="mmengine", work_dir=context.work_dir, seed=context.seed) as opened:
            from unveil_evalharness.tasks.imagenet_ft.model import OutcomeCollector, collate

            batch = _batch(protocol, context.batch_size)
            loaders = _Loaders(context, batch, collate)
            classifier, coverage = _classifier(context, num_classes=len(train.classes))
            train_images = loaders.images(train)
            if protocol.head == "probe":
                classifier.to(context.device)
                classifier.start_from_probe(loaders.test(train_images), penalty=protocol.head_penalty)
            collector = OutcomeCollector()
            train_and_evaluate(
                opened,
                model=classifier,
                encoder=classifier.encoder,
                train_loader=loaders.train(train_images),
                val_loader=loaders.test(loaders.images(val)),
                evaluator=collector,
                plan=_plan(protocol, num_images=len(train.images), accumulate=batch.accumulate),
                device=context.device,
                progress=context.progress,
                title=self.name,
            )
        samples = _samples(val, collector.outcomes, context.data_root)
        return TaskResult(metrics=_score(samples, train, val), samples=samples, load_coverage=coverage)


def _batch(protocol: ImagenetProtocol, requested: int | None) -> BatchPlan:
    plan = plan_batch(total=protocol.batch_size, requested=requested)
    if (protocol.mixup or protocol.cutmix) and plan.size % 2:
        raise ProtocolError(f"--batch-size {plan.size} is odd, but mixup pairs images; choose an even one")
    return plan


def _plan(protocol: ImagenetProtocol, *, num_images: int, accumulate: int) -> TrainingPlan:
    per_unit = 1 if protocol.unit == "iterations" else max(num_images // protocol.batch_size, 1)
    steps = protocol.duration * per_unit
    interval = max(steps // _CHECKPOINTS_PER_RUN, _FEWEST_STEPS_BETWEEN_CHECKPOINTS)
    return TrainingPlan(
        max_iters=steps,
        optimiser=OptimiserSettings(
            lr=protocol.lr,
            weight_decay=protocol.weight_decay,
            layer_decay=protocol.layer_decay,
            warmup_iters=protocol.warmup * per_unit,
            warmup_start=protocol.warmup_start,
            final_lr=protocol.final_lr,
            clip_norm=protocol.clip_norm,
        ),
        accumulate=accumulate,
        precision=protocol.precision,
        checkpoint_interval=interval if interval < steps else 0,
    )


def _classifier(
    context: TaskContext, *, num_classes: int
) -> "tuple[unveil_evalharness.tasks.imagenet_ft.model.Classifier, float]":
    """The classifier with the checkpoint's weights, past both gates, and its load coverage."""
    from unveil_evalharness.tasks.imagenet_ft.model import Classifier, build_mixup

    protocol: ImagenetProtocol = context.protocol
    height, width = image_size(protocol, context.checkpoint.manifest.preprocessing)
    source = context.checkpoint.encoder
    side = None if protocol.image_side == "pretraining" else height
    encoder = fresh_encoder(source, drop_path=protocol.drop_path, image_side=side)
    classifier = Classifier(
        encoder,
        num_classes=num_classes,
        label_smoothing=protocol.label_smoothing,
        mixup=build_mixup(
            mixup=protocol.mixup,
            cutmix=protocol.cutmix,
            label_smoothing=protocol.label_smoothing,
            num_classes=num_classes,
        ),
    )
    coverage = check_load_coverage(source.state_dict(), classifier.state_dict(), prefix="encoder.")
    same_windows = encoder.spec.config.get("window_sizes") == source.spec.config.get("window_sizes")
    # With other windows the features differ by design; then the reference is a second build with the same windows.
    reference = source if same_windows else fresh_encoder(source, drop_path=0.0, image_side=side)
    difference = check_forward_parity(
        reference,
        classifier,
        reference_features=lambda images: [reference(images)],
        task_features=lambda images: [classifier.pooled(images)],
        image=probe_image(height, width),
    )
    context.log(f"load coverage {coverage:.4f}, forward parity {difference:.1e}")
    return classifier, coverage


class _Loaders:
    """Training, probing and test loaders of one run."""

    def __init__(self, context: TaskContext, batch: BatchPlan, collate: Collate) -> None:
        protocol: ImagenetProtocol = context.protocol
        preprocessing = context.checkpoint.manifest.preprocessing
        self._training = training_transform(protocol, preprocessing)
        self._test = test_transform(protocol, preprocessing)
        self._size = batch.size
        self._seed = context.seed
        self._collate = collate
        self._pin = context.device != "cpu"
        self._num_workers = 0 if protocol.in_memory else min(os.cpu_count() or 1, 8)
        self._kept_side = 2 * max(image_size(protocol, preprocessing)) if protocol.in_memory else None

    def images(self, folder: ImageFolder) -> FolderImages:
        """The folder's images, as they are tested."""
        return FolderImages(folder, self._test, kept_side=self._kept_side)

    def train(self, images: FolderImages) -> DataLoader[Any]:
        """Endless, augmented."""
        return keyed_loader(
            images.with_transform(self._training),
            batch_size=self._size,
            seed=self._seed,
            num_workers=self._num_workers,
            collate=self._collate,
            pin_memory=self._pin,
        )

    def test(self, images: FolderImages) -> DataLoader[Any]:
        """Once over the images, as they are tested."""
        return DataLoader(
            images,
            batch_size=self._size,
            num_workers=self._num_workers,
            collate_fn=self._collate,
            pin_memory=self._pin,
        )


def _samples(val: ImageFolder, outcomes: list[dict[str, Any]], data_root: Path) -> "polars.DataFrame":
    """One row per validation image: its path under the data root, the class names, whether top 1 and top 5 hit."""
    import polars

    return polars.DataFrame(
        {
            "image": [val.images[outcome["index"]][0].relative_to(data_root).as_posix() for outcome in outcomes],
            "label": [val.classes[outcome["label"]] for outcome in outcomes],
            "prediction": [val.classes[outcome["prediction"]] for outcome in outcomes],
            "correct": [outcome["correct"] for outcome in outcomes],
            "correct5": [outcome["correct5"] for outcome in outcomes],
        }
    )


def _score(samples: "polars.DataFrame", train: ImageFolder, val: ImageFolder) -> tuple[Metric, ...]:
    num_classes = len(train.classes)
    measured = []
    for name, column, k in (("acc1", "correct", 1), ("acc5", "correct5", _TOP)):
        if k > 1 and num_classes <= k:
            continue
        value, error = metrics.accuracy(np.asarray(samples[column].to_numpy(), dtype=bool))
        measured.append(
            Metric(
                name=f"imagenet_ft.{name}",
                value=value,
                baseline=metrics.majority_accuracy(train.labels, val.labels, num_classes=num_classes, k=k),
                standard_error=error,
                n=len(samples),
            )
        )
    return tuple(measured)
