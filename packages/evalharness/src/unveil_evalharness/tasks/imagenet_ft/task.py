"""``imagenet_ft``: fine-tune the whole encoder on an ImageFolder and test it."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from torch.utils.data import DataLoader

from unveil_evalharness.engine.batch import BatchPlan, plan_batch
from unveil_evalharness.engine.encoder import fresh_encoder
from unveil_evalharness.engine.optim import OptimiserSettings
from unveil_evalharness.engine.parity import check_forward_parity, check_load_coverage, probe_image
from unveil_evalharness.engine.runner import TrainingPlan, train_and_evaluate
from unveil_evalharness.engine.session import session
from unveil_evalharness.engine.stream import keyed_loader
from unveil_evalharness.errors import ProtocolError
from unveil_evalharness.task import MetricSpec, TaskContext, TaskResult
from unveil_evalharness.tasks.classification.pictures import gallery_of
from unveil_evalharness.tasks.classification.scores import samples_of, score, tables_of
from unveil_evalharness.tasks.imagenet_ft.config import ImagenetProtocol, protocol_for
from unveil_evalharness.tasks.imagenet_ft.data import FolderImages, ImageFolder, balanced, folder_hash, read_folders
from unveil_evalharness.tasks.imagenet_ft.recipe import Recipe
from unveil_evalharness.tasks.imagenet_ft.transforms import image_size, test_transform, training_transform

if TYPE_CHECKING:
    import polars
    import unveil_backbones.manifest

    import unveil_evalharness.tasks.imagenet_ft.model

__all__ = ["ImagenetFineTune"]

Collate = Callable[[list[Any]], Any]


class ImagenetFineTune:
    """Accuracy after end-to-end fine-tuning; the baseline names the most frequent training classes for every image."""

    name = "imagenet_ft"
    version = 2
    description = "image classification by end-to-end fine-tuning on folders or shards of labelled images"
    metrics = (
        MetricSpec(name="imagenet_ft.acc1", main=True),
        MetricSpec(name="imagenet_ft.acc5"),
        MetricSpec(name="imagenet_ft.mean_per_class"),
    )
    requires = ("mmengine", "timm")

    def protocol(self, suite: str) -> ImagenetProtocol:
        """The protocol of a suite; see `config`."""
        return protocol_for(suite)

    def expected_time(self, suite: str) -> str:
        """For one checkpoint and seed."""
        recipes = protocol_for(suite).recipes
        if recipes[0].unit == "iterations":
            return "25 s on one CPU core (64-pixel images, *_tiny encoders)"
        epochs = sorted({recipe.duration for recipe in recipes})
        if suite == "short":
            return f"{epochs[0]} epochs of 128,000 images: about an hour on one GPU (estimate for ViT-B)"
        return f"{' to '.join(map(str, epochs))} epochs: days on one GPU (estimate)"

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Every image encoder can be fine-tuned."""
        del manifest

    def data_hash(self, data_root: Path) -> str:
        """See `data.folder_hash`."""
        return folder_hash(data_root)

    def num_images(self, data_root: Path, protocol: ImagenetProtocol) -> int:
        """Validation images that the protocol tests."""
        return len(balanced(read_folders(data_root)[1], protocol.max_val_images).images)

    def run(self, context: TaskContext) -> TaskResult:
        """Fine-tunes once and tests once.

        Raises:
            DataError: images are missing, unreadable or differently labelled in train and val.
            GateError: the classifier does not hold the checkpoint's encoder.
            ProtocolError: ``--batch-size`` does not fit the protocol.
            DivergedError: the loss is not a number.
        """
        protocol: ImagenetProtocol = context.protocol
        recipe = protocol.recipe(context.checkpoint.manifest)
        all_train, all_val = read_folders(context.data_root)
        train = balanced(balanced(all_train, protocol.max_train_images), context.limit)
        val = balanced(balanced(all_val, protocol.max_val_images), context.limit)
        context.log(f"{len(train.images)} training and {len(val.images)} test images of {len(train.classes)} classes")
        context.log(f"recipe: {recipe.name}")
        ranked, coverage = _fine_tune(context, recipe, train, val)
        samples = samples_of(ranked, val, context.data_root)
        return TaskResult(
            metrics=score(
                ranked, train, val, names={name: f"imagenet_ft.{name}" for name in ("acc1", "acc5", "mean_per_class")}
            ),
            samples=samples,
            load_coverage=coverage,
            gallery=gallery_of(samples, val, context.data_root),
            tables={**tables_of(ranked, val), "recipe": _settings(recipe)},
        )


def _fine_tune(
    context: TaskContext, recipe: Recipe, train: ImageFolder, val: ImageFolder
) -> tuple[Int[np.ndarray, "n k"], float]:
    """The likeliest classes of each validation image, best first, and the load coverage."""
    with session(scope="mmengine", work_dir=context.work_dir, seed=context.seed) as opened:
        from unveil_evalharness.tasks.imagenet_ft.model import OutcomeCollector, collate

        batch = _batch(recipe, context.batch_size)
        loaders = _Loaders(context, recipe, batch, collate)
        classifier, coverage = _classifier(context, recipe, num_classes=len(train.classes))
        train_images = loaders.images(train)
        if recipe.head == "probe":
            classifier.to(context.device)
            classifier.start_from_probe(loaders.test(train_images), penalty=recipe.head_penalty)
        collector = OutcomeCollector()
        train_and_evaluate(
            opened,
            model=classifier,
            encoder=classifier.encoder,
            train_loader=loaders.train(train_images),
            val_loader=loaders.test(loaders.images(val)),
            evaluator=collector,
            plan=_plan(
                context.protocol,
                recipe,
                num_images=len(train.images),
                accumulate=batch.accumulate,
                probe_memory=context.batch_size is None,
            ),
            device=context.device,
            progress=context.progress,
            title="imagenet_ft",
        )
    return np.array([outcome["ranked"] for outcome in collector.outcomes], dtype=np.int64), coverage


def _settings(recipe: Recipe) -> "polars.DataFrame":
    """The recipe that was used, one row per field."""
    import polars

    fields = asdict(recipe)
    return polars.DataFrame({"setting": list(fields), "value": [str(value) for value in fields.values()]})


def _batch(recipe: Recipe, requested: int | None) -> BatchPlan:
    plan = plan_batch(total=recipe.batch_size, requested=requested)
    if (recipe.mixup or recipe.cutmix) and plan.size % 2:
        raise ProtocolError(f"--batch-size {plan.size} is odd, but mixup pairs images; choose an even one")
    return plan


def _plan(
    protocol: ImagenetProtocol, recipe: Recipe, *, num_images: int, accumulate: int, probe_memory: bool = False
) -> TrainingPlan:
    per_unit = 1 if recipe.unit == "iterations" else max(num_images // recipe.batch_size, 1)
    steps = recipe.duration * per_unit
    return TrainingPlan(
        max_iters=steps,
        optimiser=OptimiserSettings(
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            layer_decay=recipe.layer_decay,
            warmup_iters=recipe.warmup * per_unit,
            warmup_start=recipe.warmup_start,
            final_lr=recipe.final_lr,
            clip_norm=recipe.clip_norm,
        ),
        accumulate=accumulate,
        precision=protocol.precision,
        probe_memory=probe_memory,
        ema_decay=recipe.ema_decay,
    )


def _classifier(
    context: TaskContext, recipe: Recipe, *, num_classes: int
) -> "tuple[unveil_evalharness.tasks.imagenet_ft.model.Classifier, float]":
    """The classifier with the checkpoint's weights, past both gates, and its load coverage."""
    from unveil_evalharness.tasks.imagenet_ft.model import Classifier, build_mixup

    protocol: ImagenetProtocol = context.protocol
    height, width = image_size(protocol.image_side, context.checkpoint.manifest.preprocessing)
    source = context.checkpoint.encoder
    side = None if protocol.image_side == "pretraining" else height
    encoder = fresh_encoder(source, drop_path=recipe.drop_path, image_side=side)
    classifier = Classifier(
        encoder,
        num_classes=num_classes,
        head_std=recipe.head_std,
        label_smoothing=recipe.label_smoothing,
        mixup=build_mixup(
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
            label_smoothing=recipe.label_smoothing,
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

    def __init__(self, context: TaskContext, recipe: Recipe, batch: BatchPlan, collate: Collate) -> None:
        protocol: ImagenetProtocol = context.protocol
        preprocessing = context.checkpoint.manifest.preprocessing
        size = image_size(protocol.image_side, preprocessing)
        self._training = training_transform(
            preprocessing,
            size=size,
            interpolation=protocol.interpolation,
            crop_scale=recipe.crop_scale,
            flip=recipe.flip,
            colour_jitter=recipe.colour_jitter,
            auto_augment=recipe.auto_augment,
            random_erasing=recipe.random_erasing,
        )
        self._test = test_transform(
            preprocessing, size=size, crop=protocol.test_crop, interpolation=protocol.interpolation
        )
        self._size = batch.size
        self._seed = context.seed
        self._collate = collate
        self._pin = context.device != "cpu"
        self._num_workers = 0 if protocol.in_memory else min(os.cpu_count() or 1, 8)
        self._kept_side = 2 * max(size) if protocol.in_memory else None

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
