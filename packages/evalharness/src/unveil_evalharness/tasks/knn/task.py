"""``knn``: nothing is trained; each validation image is named by the training images that look alike to the encoder."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from unveil_evalharness.task import MetricSpec, TaskContext, TaskResult
from unveil_evalharness.tasks.classification.scores import TOP, samples_of, score, tables_of
from unveil_evalharness.tasks.knn.config import KnnProtocol, protocol_for
from unveil_evalharness.tasks.knn.data import folder_hash, splits
from unveil_evalharness.tasks.knn.metrics import ranked_by_votes

if TYPE_CHECKING:
    import unveil_backbones.manifest

    from unveil_evalharness.tasks.imagenet_ft.data import ImageFolder

__all__ = ["NearestNeighbours"]

_NEIGHBOURS = protocol_for("full").neighbours
_MAIN = protocol_for("full").main_neighbours


class NearestNeighbours:
    """Accuracy of weighted k-nearest-neighbour voting; the baseline names the most frequent training classes."""

    name = "knn"
    version = 1
    description = "image classification by weighted k-nearest neighbours on frozen features"
    metrics = (
        *(MetricSpec(name=f"knn.acc1@{k}", main=k == _MAIN) for k in _NEIGHBOURS),
        MetricSpec(name=f"knn.acc5@{_MAIN}"),
        MetricSpec(name=f"knn.mean_per_class@{_MAIN}"),
    )
    requires = ("timm",)

    def protocol(self, suite: str) -> KnnProtocol:
        """The protocol of a suite; see `config.protocol_for`."""
        return protocol_for(suite)

    def expected_time(self, suite: str) -> str:
        """For one checkpoint."""
        protocol_for(suite)
        return {
            "quick": "10 s on one CPU core (64-pixel images, *_tiny encoders)",
            "short": "10 minutes on one GPU (estimate for ViT-B)",
        }.get(suite, "half an hour on one GPU (estimate for ViT-B)")

    def not_applicable(self, manifest: "unveil_backbones.manifest.Manifest") -> str | None:
        """Every image encoder has features."""
        del manifest

    def data_hash(self, data_root: Path) -> str:
        """See `unveil_evalharness.tasks.imagenet_ft.data.folder_hash`."""
        return folder_hash(data_root)

    def num_images(self, data_root: Path, protocol: KnnProtocol) -> int:
        """Validation images that the protocol tests."""
        return len(splits(data_root, protocol, None)[1].images)

    def run(self, context: TaskContext) -> TaskResult:
        """Looks at every image once and lets the neighbours vote.

        Raises:
            DataError: images are missing, unreadable or differently labelled in train and val.
            GateError: the encoder does not hold the checkpoint's weights.
        """
        from unveil_evalharness.tasks.classification.features import freeze
        from unveil_evalharness.tasks.classification.pictures import gallery_of

        protocol: KnnProtocol = context.protocol
        train, val = splits(context.data_root, protocol, context.limit)
        context.log(f"{len(train.images)} voting and {len(val.images)} test images of {len(train.classes)} classes")
        frozen = freeze(
            context,
            image_side=protocol.image_side,
            test_crop=protocol.test_crop,
            interpolation=protocol.interpolation,
        )
        ranked = _ranked(context, frozen.features(train, "train").numpy(), frozen.features(val, "val").numpy(), train)
        main = ranked[protocol.main_neighbours]
        samples = samples_of(main, val, context.data_root)
        # The outcome for each number of neighbours stands under its metric's name; `correct` is that of the main one.
        samples = samples.with_columns(**{f"acc1@{k}": ranked[k][:, 0] == val.labels for k in protocol.neighbours})
        measured = [
            metric for k in protocol.neighbours for metric in score(ranked[k], train, val, names={"acc1": _acc1(k)})
        ]
        names = {name: f"knn.{name}@{protocol.main_neighbours}" for name in ("acc5", "mean_per_class")}
        return TaskResult(
            metrics=(*measured, *score(main, train, val, names=names)),
            samples=samples,
            load_coverage=frozen.coverage,
            gallery=gallery_of(samples, val, context.data_root),
            tables=tables_of(main, val),
        )


def _acc1(k: int) -> str:
    return f"knn.acc1@{k}"


def _ranked(
    context: TaskContext, train: np.ndarray, val: np.ndarray, folder: "ImageFolder"
) -> dict[int, Int[np.ndarray, "n t"]]:
    """The likeliest classes of each validation image by the number of neighbours that vote."""
    import torch

    from unveil_evalharness.tasks.knn.model import nearest

    protocol: KnnProtocol = context.protocol
    similarities, positions = nearest(
        torch.from_numpy(val), torch.from_numpy(train), k=max(protocol.neighbours), device=context.device
    )
    labels = folder.labels[positions.numpy()]
    return {
        k: ranked_by_votes(
            similarities.numpy()[:, :k],
            labels[:, :k],
            num_classes=len(folder.classes),
            temperature=protocol.temperature,
            top=TOP,
        )
        for k in protocol.neighbours
    }
