"""Top-k accuracy, its standard error, and what always naming the most frequent classes would reach. NumPy only."""

import numpy as np
from jaxtyping import Bool, Int

__all__ = ["accuracy", "majority_accuracy"]


def accuracy(correct: Bool[np.ndarray, " n"]) -> tuple[float, float]:
    """The fraction of correct images and its binomial standard error ``sqrt(p (1 - p) / n)``.

    The error is that of sampling the validation images; the spread over training seeds is not in it.
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
    counts = np.bincount(train_labels, minlength=num_classes)
    named = np.argsort(-counts, kind="stable")[:k]
    return float(np.isin(val_labels, named).mean())
