"""Class vectors from prompts, and the classes nearest to an image; numpy only. Accuracies: ``classification.scores``.

Axes: ``n`` images, ``c`` classes, ``t`` templates, ``k`` classes that are kept, ``d`` embedding width.
"""

import numpy as np
from jaxtyping import Float, Int

__all__ = ["class_vectors", "nearest_classes"]

_IMAGES_AT_ONCE = 4096


def class_vectors(prompts: Float[np.ndarray, "c t d"]) -> Float[np.ndarray, "c d"]:
    """The mean of the unit vectors of each class's prompts, scaled to length 1 (CLIP, arXiv 2103.00020, 3.1.4)."""
    means = (prompts / np.linalg.norm(prompts, axis=-1, keepdims=True)).mean(axis=1)
    return means / np.linalg.norm(means, axis=-1, keepdims=True)


def nearest_classes(
    images: Float[np.ndarray, "n d"], classes: Float[np.ndarray, "c d"], *, k: int
) -> Int[np.ndarray, "n k"]:
    """The `k` classes of largest score, the best first and of equal ones the first class; fewer if there are fewer."""
    parts = [
        np.argsort(-(images[start : start + _IMAGES_AT_ONCE] @ classes.T), axis=1, kind="stable")[:, :k]
        for start in range(0, len(images), _IMAGES_AT_ONCE)
    ]
    return np.concatenate(parts).astype(np.int64)
