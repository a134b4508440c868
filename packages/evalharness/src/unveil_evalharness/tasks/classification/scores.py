"""From ranked classes per image to metrics, per-sample outcomes and tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from unveil_evalharness.task import Metric
from unveil_evalharness.tasks.imagenet_ft import metrics
from unveil_evalharness.tasks.imagenet_ft.data import ImageFolder, image_name

if TYPE_CHECKING:
    import polars

__all__ = ["TOP", "samples_of", "score", "tables_of"]

TOP = 5
"""The k of top-k accuracy; with fewer classes every image counts as right, and so does the baseline."""


def score(
    ranked: Int[np.ndarray, "n k"], train: ImageFolder, val: ImageFolder, *, names: Mapping[str, str]
) -> tuple[Metric, ...]:
    """Accuracies over the validation images.

    Args:
        ranked: classes of each image, the likeliest first; at most five are looked at.
        train: for the baseline, which names the most frequent training classes for every image.
        val: the images in the order of `ranked`.
        names: which to compute (``"acc1"``, ``"acc5"``, ``"mean_per_class"``), and what to call them.
    """
    num_classes, labels = len(val.classes), val.labels
    hits = ranked[:, :TOP] == labels[:, None]
    first = hits[:, 0]
    per_class = metrics.mean_per_class(labels, first, num_classes=num_classes)
    trained = train.labels
    values = {
        "acc1": (
            *metrics.accuracy(first),
            metrics.majority_accuracy(trained, labels, num_classes=num_classes, k=1),
        ),
        "acc5": (
            *metrics.accuracy(hits.any(axis=1)),
            metrics.majority_accuracy(trained, labels, num_classes=num_classes, k=TOP),
        ),
        "mean_per_class": (
            *per_class,
            metrics.majority_mean_per_class(trained, labels, num_classes=num_classes),
        ),
    }
    return tuple(
        Metric(name=name, value=value, baseline=baseline, standard_error=error, n=len(labels))
        for which, name in names.items()
        for value, error, baseline in [values[which]]
    )


def samples_of(ranked: Int[np.ndarray, "n k"], val: ImageFolder, data_root: Path) -> "polars.DataFrame":
    """One row per validation image: its path under the data root, class names, whether top 1 and top 5 hit."""
    import polars

    hits = ranked[:, :TOP] == val.labels[:, None]
    return polars.DataFrame(
        {
            "image": [image_name(image, data_root) for image, _ in val.images],
            "label": [val.classes[label] for _, label in val.images],
            "prediction": [val.classes[number] for number in ranked[:, 0].tolist()],
            "correct": hits[:, 0],
            "correct5": hits.any(axis=1),
        }
    )


def tables_of(ranked: Int[np.ndarray, "n k"], val: ImageFolder) -> "dict[str, polars.DataFrame]":
    """``per_class`` (images, recall, precision, the class it is mostly taken for) and ``confusion``.

    The confusion has one row per pair of classes that occurs: label, prediction, number of images.
    """
    import polars

    counts = metrics.confusion(val.labels, ranked[:, 0].astype(np.int64), num_classes=len(val.classes))
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    mistaken = [val.classes[number] if row.any() else "" for number, row in zip(wrong.argmax(1), wrong, strict=True)]
    per_class = polars.DataFrame(
        {
            "class": list(val.classes),
            "n": counts.sum(axis=1),
            "recall": metrics.recall(counts),
            "precision": metrics.precision(counts),
            "mostly_taken_for": mistaken,
        }
    )
    rows, columns = np.nonzero(counts)
    confusion = polars.DataFrame(
        {
            "label": [val.classes[number] for number in rows],
            "prediction": [val.classes[number] for number in columns],
            "n": counts[rows, columns],
        }
    )
    return {"per_class": per_class.fill_nan(None), "confusion": confusion}
