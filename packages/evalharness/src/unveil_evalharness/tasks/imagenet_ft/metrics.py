"""Accuracies with standard errors, what naming the most frequent classes would reach, and the confusion of classes.

NumPy only. Axes: n images, c classes.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = [
    "accuracy",
    "confusion",
    "majority_accuracy",
    "majority_mean_per_class",
    "mean_per_class",
    "precision",
    "recall",
]


def accuracy(correct: Bool[np.ndarray, " n"]) -> tuple[float, float]:
    """The fraction of correct images and its binomial standard error ``sqrt(p (1 - p) / n)``.

    The error is that of sampling the validation images (what a bootstrap over them converges to); the spread over
    training seeds is not in it.
    """
    if correct.size == 0:
        raise ValueError("accuracy needs at least one image")
    fraction = float(correct.mean())
    return fraction, float(np.sqrt(fraction * (1 - fraction) / correct.size))


def majority_accuracy(
    train_labels: Int[np.ndarray, " m"], val_labels: Int[np.ndarray, " n"], *, num_classes: int, k: int
) -> float:
    """Top-k accuracy on `val_labels` of always naming the `k` most frequent classes of `train_labels`.

    Ties go to the class that comes first.
    """
    named = _most_frequent(train_labels, num_classes)[:k]
    return float(np.isin(val_labels, named).mean())


def mean_per_class(
    labels: Int[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], *, num_classes: int
) -> tuple[float, float]:
    """The mean over classes of the fraction of their images that are correct, and its standard error.

    Classes without a validation image do not count. The error is that of sampling images within each class:
    ``sqrt(sum_c p_c (1 - p_c) / n_c) / c``.
    """
    counts = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels, weights=correct, minlength=num_classes)
    present = counts > 0
    if not present.any():
        raise ValueError("mean_per_class needs at least one image")
    recalls = hits[present] / counts[present]
    variance = (recalls * (1 - recalls) / counts[present]).sum()
    return float(recalls.mean()), float(np.sqrt(variance) / present.sum())


def majority_mean_per_class(
    train_labels: Int[np.ndarray, " m"], val_labels: Int[np.ndarray, " n"], *, num_classes: int
) -> float:
    """`mean_per_class` of always naming the most frequent class of `train_labels`."""
    named = _most_frequent(train_labels, num_classes)[0]
    return mean_per_class(val_labels, val_labels == named, num_classes=num_classes)[0]


def confusion(
    labels: Int[np.ndarray, " n"], predictions: Int[np.ndarray, " n"], *, num_classes: int
) -> Int[np.ndarray, "c c"]:
    """How many images of the class of each row were taken for the class of each column."""
    cells = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def recall(counts: Int[np.ndarray, "c c"]) -> Float[np.ndarray, " c"]:
    """Of each class, the fraction of its images that were recognised; not a number without images."""
    return _ratio(np.diagonal(counts), counts.sum(axis=1))


def precision(counts: Int[np.ndarray, "c c"]) -> Float[np.ndarray, " c"]:
    """Of each class, the fraction of images taken for it that are of it; not a number if none was."""
    return _ratio(np.diagonal(counts), counts.sum(axis=0))


def _most_frequent(labels: Int[np.ndarray, " m"], num_classes: int) -> Int[np.ndarray, " c"]:
    return np.argsort(-np.bincount(labels, minlength=num_classes), kind="stable")


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
