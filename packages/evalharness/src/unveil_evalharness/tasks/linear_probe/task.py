"""``linear_probe``: two linear layers on the frozen encoder, trained by LARS and by L-BFGS."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from unveil_evalharness.engine.batch import plan_batch
from unveil_evalharness.engine.session import restored_random_state
from unveil_evalharness.engine.stream import SampleStream, keyed_loader
from unveil_evalharness.task import MetricSpec, TaskContext, TaskResult
from unveil_evalharness.tasks.classification.scores import TOP, samples_of, score, tables_of
from unveil_evalharness.tasks.linear_probe.config import LinearProbeProtocol, protocol_for
from unveil_evalharness.tasks.linear_probe.data import folder_hash, held_out, splits
from unveil_evalharness.tasks.linear_probe.metrics import ranked

if TYPE_CHECKING:
    import polars
    import unveil_backbones.manifest
    from torch import Tensor

    from unveil_evalharness.tasks.classification.features import FrozenEncoder
    from unveil_evalharness.tasks.imagenet_ft.data import ImageFolder
    from unveil_evalharness.tasks.linear_probe.model import Choice

__all__ = ["LinearProbe"]

_SCORES = ("acc1", "acc5", "mean_per_class")
_IMAGES_PER_PASS = 256


class LinearProbe:
    """Accuracy of two linear layers; the baseline names the most frequent training classes for every image."""

    name = "linear_probe"
    version = 1
    description = "image classification by a linear layer on frozen features, trained by LARS and by L-BFGS"
    metrics = (
        MetricSpec(name="linear_probe.acc1", main=True),
        MetricSpec(name="linear_probe.acc5"),
        MetricSpec(name="linear_probe.mean_per_class"),
        MetricSpec(name="linear_probe.lbfgs_acc1"),
        MetricSpec(name="linear_probe.lbfgs_acc5"),
        MetricSpec(name="linear_probe.lbfgs_mean_per_class"),
    )
    requires = ("timm",)

    def protocol(self, suite: str) -> LinearProbeProtocol:
        """The protocol of a suite; see `config.protocol_for`."""
        return protocol_for(suite)

    def expected_time(self, suite: str) -> str:
        """For one checkpoint and seed."""
        protocol_for(suite)
        return {
            "quick": "15 s on one CPU core (64-pixel images, *_tiny encoders)",
            "short": "20 minutes on one GPU (estimate for ViT-B)",
        }.get(suite, "90 epochs forward only: a day on one GPU (estimate for ViT-B)")

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Every image encoder has features."""
        del manifest

    def data_hash(self, data_root: Path) -> str:
        """See `unveil_evalharness.tasks.imagenet_ft.data.folder_hash`."""
        return folder_hash(data_root)

    def num_images(self, data_root: Path, protocol: LinearProbeProtocol) -> int:
        """Validation images that the protocol tests."""
        return len(splits(data_root, protocol, None)[1].images)

    def run(self, context: TaskContext) -> TaskResult:
        """Trains and tests both layers.

        Raises:
            DataError: images are missing, unreadable or differently labelled in train and val.
            GateError: the encoder does not hold the checkpoint's weights.
            ProtocolError: ``--batch-size`` does not fit the protocol.
        """
        from unveil_evalharness.tasks.classification.features import freeze
        from unveil_evalharness.tasks.classification.pictures import gallery_of

        protocol: LinearProbeProtocol = context.protocol
        train, val = splits(context.data_root, protocol, context.limit)
        context.log(f"{len(train.images)} training and {len(val.images)} test images of {len(train.classes)} classes")
        frozen = freeze(
            context,
            image_side=protocol.image_side,
            test_crop=protocol.test_crop,
            interpolation=protocol.interpolation,
        )
        tested = frozen.features(val, "val")
        by_lars = _by_lars(context, frozen, train, tested)
        by_lbfgs, choice = _by_lbfgs(context, frozen, train, tested)
        samples = samples_of(by_lars, val, context.data_root)
        second = samples_of(by_lbfgs, val, context.data_root).select("prediction", "correct", "correct5")
        lars_names = {name: f"linear_probe.{name}" for name in _SCORES}
        lbfgs_names = {name: f"linear_probe.lbfgs_{name}" for name in _SCORES}
        return TaskResult(
            metrics=(
                *score(by_lars, train, val, names=lars_names),
                *score(by_lbfgs, train, val, names=lbfgs_names),
            ),
            samples=samples.with_columns(second.rename(lambda name: f"lbfgs_{name}")),
            load_coverage=frozen.coverage,
            gallery=gallery_of(samples, val, context.data_root),
            tables={**tables_of(by_lars, val), "penalties": _penalties(protocol, choice)},
        )


def _by_lars(
    context: TaskContext, frozen: "FrozenEncoder", train: "ImageFolder", tested: "Tensor"
) -> Int[np.ndarray, "n t"]:
    """The likeliest classes of each validation image by the layer that LARS trains."""
    from tqdm import tqdm

    from unveil_evalharness.tasks.linear_probe.model import LarsProbe

    protocol: LinearProbeProtocol = context.protocol
    probe = LarsProbe(
        tested.shape[1],
        num_classes=len(train.classes),
        steps_per_epoch=max(len(train.images) // protocol.batch_size, 1),
        protocol=protocol,
        seed=context.seed,
        device=context.device,
    )
    kept = context.work_dir / "lars.safetensors"
    if probe.resume(kept):
        context.log(f"LARS goes on after {probe.step} of {probe.total} steps")
    batches = _augmented(context, frozen, train) if protocol.augment else _cached(context, frozen, train)
    if probe.step < probe.total:
        bar = tqdm(
            total=probe.total, initial=probe.step, desc="linear_probe", disable=not context.progress, leave=False
        )
        with bar, restored_random_state():
            probe.train(batches(probe.step), keep=kept, report=lambda _: bar.update())
    return ranked(probe.logits(tested).numpy(), top=TOP)


def _by_lbfgs(
    context: TaskContext, frozen: "FrozenEncoder", train: "ImageFolder", tested: "Tensor"
) -> "tuple[Int[np.ndarray, 'n t'], Choice]":
    """The same by logistic regression, and the penalty that was chosen for it."""
    import torch

    from unveil_evalharness.tasks.linear_probe.model import choose_penalty

    protocol: LinearProbeProtocol = context.protocol
    choice = choose_penalty(
        frozen.features(train, "train").to(context.device, torch.float64),
        torch.from_numpy(train.labels).to(context.device),
        held_out(train.labels, protocol.held_out),
        num_classes=len(train.classes),
        inverse_penalties=protocol.inverse_penalties,
        max_steps=protocol.max_steps,
    )
    context.log(f"L-BFGS: C = {choice.inverse_penalty:g} did best on the images held out")
    with torch.no_grad():
        scores = choice.head(tested.to(context.device, torch.float64))
    return ranked(scores.cpu().numpy(), top=TOP), choice


def _cached(context: TaskContext, frozen: "FrozenEncoder", train: "ImageFolder") -> Any:
    """Batches of features computed once, from any step on."""
    import torch

    size = context.protocol.batch_size
    features = frozen.features(train, "train")
    labels = torch.from_numpy(train.labels)
    stream = SampleStream(train.labels, context.seed)

    def batches(first: int) -> "Iterator[tuple[Tensor, Tensor]]":
        step = first
        while True:
            chosen = [stream.index(position) for position in range(step * size, (step + 1) * size)]
            yield features[chosen], labels[chosen]
            step += 1

    return batches


def _augmented(context: TaskContext, frozen: "FrozenEncoder", train: "ImageFolder") -> Any:
    """Batches of features of random crops, from any step on."""
    import torch
    from torch.utils.data import default_collate

    from unveil_evalharness.engine.stream import StreamBatches
    from unveil_evalharness.tasks.classification.features import num_workers
    from unveil_evalharness.tasks.imagenet_ft.data import FolderImages
    from unveil_evalharness.tasks.imagenet_ft.transforms import training_transform

    protocol: LinearProbeProtocol = context.protocol
    requested = context.batch_size or _largest_divisor(protocol.batch_size, _IMAGES_PER_PASS)
    plan = plan_batch(total=protocol.batch_size, requested=requested)
    transform = training_transform(
        frozen.preprocessing,
        size=frozen.size,
        interpolation=protocol.interpolation,
        crop_scale=protocol.crop_scale,
        flip=protocol.flip,
    )
    loader = keyed_loader(
        FolderImages(train, transform, kept_side=None),
        batch_size=plan.size,
        seed=context.seed,
        num_workers=num_workers(len(train.images)),
        collate=default_collate,
    )

    def batches(first: int) -> "Iterator[tuple[Tensor, Tensor]]":
        assert isinstance(loader.batch_sampler, StreamBatches)
        loader.batch_sampler.start = first * plan.accumulate
        features, labels = [], []
        for batch in loader:
            features.append(frozen.pooled(batch["inputs"]))
            labels.append(batch["targets"])
            if len(features) == plan.accumulate:
                yield torch.cat(features), torch.cat(labels)
                features, labels = [], []

    return batches


def _largest_divisor(total: int, limit: int) -> int:
    return next(number for number in range(min(total, limit), 0, -1) if total % number == 0)


def _penalties(protocol: LinearProbeProtocol, choice: "Choice") -> "polars.DataFrame":
    """Accuracy on the images held out by penalty, and which one was chosen."""
    import polars

    return polars.DataFrame(
        {
            "C": list(protocol.inverse_penalties),
            "held_out_accuracy": list(choice.accuracies),
            "chosen": [inverse == choice.inverse_penalty for inverse in protocol.inverse_penalties],
        }
    )
