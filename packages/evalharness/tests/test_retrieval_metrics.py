"""Right pairs, recall, standard error and chance level against hand-made values and brute force."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_evalharness.tasks.zs_retrieval import metrics


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
