"""Right pairs, recall, its standard error and its chance level; numpy only. Ranks are counted in `ranking`.

Axes: ``q`` queries, ``c`` captions, ``r`` right (caption, image) pairs.
"""

import numpy as np
from jaxtyping import Bool, Int

__all__ = ["chance_recall", "clustered_standard_error", "hits", "relevant_pairs"]


def relevant_pairs(
    image_of_caption: Int[np.ndarray, " c"], text_of_caption: Int[np.ndarray, " c"], *, merge: bool
) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " r"]]:
    """All right (caption, image) pairs, without repetition, sorted by caption and then by image.

    Args:
        image_of_caption: index of the image each caption was written for.
        text_of_caption: number of the caption's text; captions with the same words share it.
        merge: whether a caption is right for every image that has a caption with the same words.
    """
    if not merge:
        return np.arange(len(image_of_caption)), image_of_caption.astype(np.int64)
    owners = np.unique(np.stack([text_of_caption, image_of_caption], axis=1), axis=0)
    starts = np.searchsorted(owners[:, 0], text_of_caption, side="left")
    counts = np.searchsorted(owners[:, 0], text_of_caption, side="right") - starts
    captions = np.repeat(np.arange(len(text_of_caption)), counts)
    within = np.arange(len(captions)) - np.repeat(np.cumsum(counts) - counts, counts)
    return captions, owners[np.repeat(starts, counts) + within, 1].astype(np.int64)


def hits(ranks: Int[np.ndarray, " q"], k: int) -> Bool[np.ndarray, " q"]:
    """Whether each query has a right candidate among its first `k`."""
    return ranks <= k


def clustered_standard_error(outcomes: Bool[np.ndarray, " q"], cluster: Int[np.ndarray, " q"]) -> float | None:
    """Standard error of the mean outcome when the outcomes of one cluster are not independent.

    The captions of one image succeed and fail together, so images are the independent units: the linearised
    (cluster-robust) variance of a ratio of sums, ``m/(m-1) * sum_i (sum of outcome - mean)^2 / q^2`` over m clusters.
    With one outcome per cluster this is the usual ``std(ddof=1) / sqrt(q)``. None for fewer than two clusters.
    """
    _, index = np.unique(cluster, return_inverse=True)
    num_clusters = int(index.max()) + 1 if len(index) else 0
    if num_clusters < 2:
        return None
    residuals = np.bincount(index, weights=outcomes - outcomes.mean())
    return float(np.sqrt(num_clusters / (num_clusters - 1) * np.sum(residuals**2)) / len(outcomes))


def chance_recall(num_right: Int[np.ndarray, " q"], num_candidates: int, k: int) -> float:
    """Expected recall at `k` when every ordering of the candidates is equally likely.

    A query with r right ones among c candidates is missed with probability C(c - r, k) / C(c, k), the hypergeometric
    chance that none of the first k is right.
    """
    first = np.arange(min(k, num_candidates))
    factors = np.maximum(num_candidates - num_right[:, None] - first, 0) / (num_candidates - first)
    return float(np.mean(1.0 - np.prod(factors, axis=1)))
