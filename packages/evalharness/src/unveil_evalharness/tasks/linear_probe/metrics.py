"""From scores to ranked classes; accuracies are those of ``imagenet_ft``. NumPy only."""

import numpy as np
from jaxtyping import Float, Int

__all__ = ["ranked"]


def ranked(scores: Float[np.ndarray, "n c"], *, top: int) -> Int[np.ndarray, "n t"]:
    """The `top` classes of largest score, the largest first; equal scores are ordered by the number of the class."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :top]
