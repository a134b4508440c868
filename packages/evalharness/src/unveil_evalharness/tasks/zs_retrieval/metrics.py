"""Exact retrieval ranks, recall, its standard error and its chance level; numpy only.

The rank of a query is one plus the number of wrong candidates that score at least as high as its best right candidate.
It is counted, not sorted: ``(scores >= best right score)`` summed over a row, in blocks of queries, so that neither the
whole score matrix nor any ordering is ever made. Equal scores count against the query (a documented choice: an encoder
that maps everything to one point must not look perfect).

Axes: ``q`` queries, ``c`` candidates, ``u`` distinct candidate embeddings, ``r`` (query, right candidate) pairs,
``d`` embedding width.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["chance_recall", "clustered_standard_error", "hits", "ranks", "relevant_pairs"]

_BLOCK_BYTES = 64 * 2**20


def ranks(
    queries: Float[np.ndarray, "q d"],
    candidates: Float[np.ndarray, "u d"],
    columns: Int[np.ndarray, " c"],
    pair_query: Int[np.ndarray, " r"],
    pair_candidate: Int[np.ndarray, " r"],
    *,
    block_bytes: int = _BLOCK_BYTES,
) -> Int[np.ndarray, " q"]:
    """Rank of the best right candidate of every query, 1 being first; equal scores count against.

    Args:
        queries: embeddings of the queries.
        candidates: embeddings of the distinct candidates.
        columns: for each candidate, its row in `candidates`. Candidates with one content (the same caption twice)
            share a row, so that their scores are equal to the last bit.
        pair_query: query of each right pair, ascending; every query occurs at least once.
        pair_candidate: candidate of each right pair, indexing `columns`.
        block_bytes: upper limit for one block of scores; does not change the result's meaning.

    Raises:
        ValueError: a query has no right candidate, or the pairs are not sorted by query.
    """
    num_queries, num_candidates = len(queries), len(columns)
    if np.any(np.diff(pair_query) < 0) or len(np.unique(pair_query)) != num_queries:
        raise ValueError("pair_query must be ascending and name each query at least once")
    result = np.empty(num_queries, dtype=np.int64)
    step = max(1, block_bytes // (max(1, num_candidates) * queries.dtype.itemsize))
    identity = len(candidates) == num_candidates and np.array_equal(columns, np.arange(num_candidates))
    for start in range(0, num_queries, step):
        stop = min(start + step, num_queries)
        scores = queries[start:stop] @ candidates.T
        if not identity:
            scores = scores[:, columns]
        first, last = np.searchsorted(pair_query, (start, stop))
        owner = pair_query[first:last] - start
        right = scores[owner, pair_candidate[first:last]]
        best = np.full(stop - start, -np.inf, dtype=scores.dtype)
        np.maximum.at(best, owner, right)
        at_least = np.count_nonzero(scores >= best[:, None], axis=1)
        right_at_least = np.bincount(owner[right >= best[owner]], minlength=stop - start)
        result[start:stop] = 1 + at_least - right_at_least
    return result


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
