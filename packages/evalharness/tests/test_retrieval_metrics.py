"""Ranks, recall, standard error and chance level against hand-made values and brute force."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unveil_evalharness.tasks.zs_retrieval import metrics


def plain_ranks(scores: np.ndarray, right: list[set[int]]) -> list[int]:
    """One plus the number of wrong candidates at least as good as the best right one, by definition."""
    result = []
    for row, good in zip(scores, right, strict=True):
        best = max(row[j] for j in good)
        result.append(1 + sum(1 for j, score in enumerate(row) if j not in good and score >= best))
    return result


def ranks_of_scores(scores: np.ndarray, right: list[set[int]], **options: int) -> np.ndarray:
    """`metrics.ranks` on a score matrix: queries are its rows, candidates the unit vectors."""
    pairs = [(query, candidate) for query, good in enumerate(right) for candidate in sorted(good)]
    query, candidate = np.array(pairs).T
    width = scores.shape[1]
    return metrics.ranks(scores, np.eye(width), np.arange(width), query, candidate, **options)


def test_a_hand_made_score_matrix():
    scores = np.array([[0.9, 0.1, 0.5], [0.3, 0.2, 0.8], [0.4, 0.6, 0.6]])
    assert ranks_of_scores(scores, [{0}, {1}, {0, 2}]).tolist() == [1, 3, 2]


def test_equal_scores_count_against_the_query():
    scores = np.array([[0.5, 0.5, 0.5, 0.1]])
    assert ranks_of_scores(scores, [{1}]).tolist() == [3]


def test_equal_scores_among_right_candidates_cost_nothing():
    scores = np.array([[0.5, 0.5, 0.5, 0.1]])
    assert ranks_of_scores(scores, [{0, 1, 2}]).tolist() == [1]


def test_a_collapsed_encoder_finds_nothing():
    same = np.ones((6, 4)) / 2
    ranks = metrics.ranks(same, same, np.arange(6), np.arange(6), np.arange(6))
    assert ranks.tolist() == [6] * 6


@settings(deadline=None)
@given(data=st.data(), num_queries=st.integers(1, 7), num_candidates=st.integers(1, 9), block=st.integers(1, 400))
def test_ranks_agree_with_brute_force_in_any_block_size(data, num_queries, num_candidates, block):
    # Few distinct scores, so that ties are common.
    scores = np.array(
        data.draw(
            st.lists(
                st.lists(st.integers(0, 3), min_size=num_candidates, max_size=num_candidates),
                min_size=num_queries,
                max_size=num_queries,
            )
        ),
        dtype=np.float64,
    )
    right = [
        data.draw(st.sets(st.integers(0, num_candidates - 1), min_size=1, max_size=num_candidates))
        for _ in range(num_queries)
    ]
    assert ranks_of_scores(scores, right, block_bytes=block).tolist() == plain_ranks(scores, right)


def test_ranks_do_not_depend_on_the_order_of_candidates():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 8))
    right = [{i, (i + 3) % 8} for i in range(5)]
    expected = plain_ranks(scores, right)
    for order in list(permutations(range(8)))[:: 8 * 7 * 6]:
        place = {old: new for new, old in enumerate(order)}
        moved = [{place[j] for j in good} for good in right]
        assert ranks_of_scores(scores[:, list(order)], moved).tolist() == expected


def test_candidates_with_one_content_score_equal_to_the_last_bit():
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(33, 37)).astype(np.float32)
    distinct = rng.normal(size=(11, 37)).astype(np.float32)
    columns = np.arange(53) % 11
    # Only the candidate with the query's own number is right; its copies are wrong and tie exactly.
    ranks = metrics.ranks(queries, distinct, columns, np.arange(33), np.arange(33))
    scores = queries @ distinct.T
    for i in range(33):
        better = (scores[i] > scores[i, i % 11])[columns].sum()
        copies = (columns == i % 11).sum() - 1
        assert ranks[i] == 1 + better + copies


def test_every_query_needs_a_right_candidate():
    with pytest.raises(ValueError, match="each query at least once"):
        metrics.ranks(np.eye(2), np.eye(2), np.arange(2), np.array([0]), np.array([0]))


def test_pairs_without_merging_are_the_captions_own_images():
    caption, image = metrics.relevant_pairs(np.array([0, 0, 1]), np.array([0, 1, 0]), merge=False)
    assert caption.tolist() == [0, 1, 2]
    assert image.tolist() == [0, 0, 1]


def test_merging_makes_every_image_with_the_words_right():
    # Captions: image 0 says A and B, image 1 says A, image 2 says C twice.
    caption, image = metrics.relevant_pairs(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 0, 2, 2]), merge=True)
    assert list(zip(caption.tolist(), image.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (2, 0),
        (2, 1),
        (3, 2),
        (4, 2),
    ]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=12),
)
def test_merged_pairs_agree_with_their_definition(captions):
    image_of = np.array([image for image, _ in captions])
    text_of = np.array([text for _, text in captions])
    expected = sorted(
        {(i, image) for i, (_, text) in enumerate(captions) for image, other in captions if other == text}
    )
    caption, image = metrics.relevant_pairs(image_of, text_of, merge=True)
    assert list(zip(caption.tolist(), image.tolist(), strict=True)) == sorted(expected)


def test_hits_at_k():
    assert metrics.hits(np.array([1, 2, 6]), 5).tolist() == [True, True, False]


def test_standard_error_of_independent_outcomes_is_the_textbook_one():
    outcomes = np.array([1, 0, 0, 1, 1, 0, 1, 1], dtype=bool)
    expected = np.std(outcomes, ddof=1) / np.sqrt(8)
    assert metrics.clustered_standard_error(outcomes, np.arange(8)) == pytest.approx(expected, abs=1e-15)


def test_repeating_every_outcome_does_not_shrink_the_standard_error():
    outcomes = np.array([1, 0, 0, 1, 1], dtype=bool)
    once = metrics.clustered_standard_error(outcomes, np.arange(5))
    five_times = metrics.clustered_standard_error(np.repeat(outcomes, 5), np.repeat(np.arange(5), 5))
    assert five_times == pytest.approx(once)


def test_standard_error_of_unequal_clusters_by_hand():
    # Clusters (1, 1), (0): mean 2/3, residual sums 2/3 and -2/3, error sqrt(2 * 8/9) / 3.
    outcomes = np.array([True, True, False])
    assert metrics.clustered_standard_error(outcomes, np.array([7, 7, 9])) == pytest.approx(np.sqrt(2 * 8 / 9) / 3)


def test_one_cluster_has_no_standard_error():
    assert metrics.clustered_standard_error(np.array([True, False]), np.array([0, 0])) is None


def test_chance_recall_by_hand():
    # One right of four: k/4. Two right of four: missed at 2 with probability 1/6.
    assert metrics.chance_recall(np.array([1]), 4, 1) == pytest.approx(0.25)
    assert metrics.chance_recall(np.array([1, 2]), 4, 2) == pytest.approx((0.5 + 5 / 6) / 2)
    assert metrics.chance_recall(np.array([1]), 3, 10) == 1.0


@given(num_candidates=st.integers(1, 5), data=st.data())
def test_chance_recall_is_the_mean_over_all_orders(num_candidates, data):
    num_right = data.draw(st.integers(1, num_candidates))
    k = data.draw(st.integers(1, 6))
    orders = list(permutations(range(num_candidates)))
    found = sum(1 for order in orders if any(candidate < num_right for candidate in order[:k]))
    assert metrics.chance_recall(np.array([num_right]), num_candidates, k) == pytest.approx(found / len(orders))
