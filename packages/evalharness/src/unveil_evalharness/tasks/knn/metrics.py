"""Votes of neighbours. NumPy only. Axes: n images, k neighbours, c classes."""

import numpy as np
from jaxtyping import Float, Int

__all__ = ["NO_CLASS", "ranked_by_votes"]

NO_CLASS = -1
"""Stands where no further class has a vote."""


def ranked_by_votes(
    similarities: Float[np.ndarray, "n k"],
    labels: Int[np.ndarray, "n k"],
    *,
    num_classes: int,
    temperature: float,
    top: int,
) -> Int[np.ndarray, "n t"]:
    """The `top` classes with the largest sum of weights ``exp(similarity / temperature)``, the largest first.

    Weighted k-nearest-neighbour classification (Wu et al., arXiv 1805.01978; DINO, arXiv 2104.14294). Classes of equal
    weight are ordered by their number; a class without a neighbour has no place, `NO_CLASS` stands there.

    Args:
        similarities: cosine similarity of each neighbour.
        labels: class of each neighbour.
        num_classes: classes in all.
        temperature: small values let the nearest decide.
        top: classes per image; fewer where there are fewer classes.
    """
    if similarities.shape[1] == 0:
        raise ValueError("votes need at least one neighbour")
    # The largest similarity of a row is subtracted for numerical safety; the order does not depend on it.
    offsets = similarities.astype(np.float64) - similarities.max(axis=1, keepdims=True)
    weights = np.exp(offsets / temperature)
    votes = np.zeros((len(labels), num_classes))
    rows = np.repeat(np.arange(len(labels)), labels.shape[1])
    np.add.at(votes, (rows, labels.ravel()), weights.ravel())
    order = np.argsort(-votes, axis=1, kind="stable")[:, :top]
    return np.where(np.take_along_axis(votes, order, axis=1) > 0, order, NO_CLASS)
