"""Ranks in both directions against their definition, in tiles of any size, and against two trusted libraries."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score
from unveil_backbones import ensure_torchvision
from unveil_evalharness.tasks.zs_retrieval import metrics, ranking
from unveil_evalharness.tasks.zs_retrieval.ranking import ranks_both_ways


def plain_ranks(scores: np.ndarray, right: np.ndarray) -> list[int]:
    """One plus the number of wrong candidates at least as good as the best right one, by definition."""
    return [
        1 + sum(not good and score >= max(row[goods]) for score, good in zip(row, goods, strict=True))
        for row, goods in zip(scores, right, strict=True)
    ]


def of_scores(scores: np.ndarray, right: np.ndarray, **options: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Ranks of captions and of images on a score matrix [n c] whose right pairs are marked."""
    caption, image = np.nonzero(right.T)
    num_captions = scores.shape[1]
    captions, images = ranks_both_ways(scores, np.eye(num_captions), np.arange(num_captions), caption, image, **options)
    return captions.tolist(), images.tolist()


def test_a_hand_made_score_matrix():
    scores = np.array([[0.9, 0.1, 0.5], [0.3, 0.2, 0.8]])
    right = np.array([[True, False, True], [False, True, False]])
    # Captions 0 and 1 see their image first; caption 2 belongs to image 0 but image 1 scores higher.
    # Image 0 has caption 0 first; image 1's only caption is the last of three.
    assert of_scores(scores, right) == ([1, 1, 2], [1, 3])


def test_equal_scores_count_against_the_query():
    scores = np.full((3, 3), 0.5)
    assert of_scores(scores, np.eye(3, dtype=bool)) == ([3, 3, 3], [3, 3, 3])


def test_equal_scores_among_right_candidates_cost_nothing():
    scores = np.array([[0.5, 0.5, 0.5, 0.1]])
    assert of_scores(scores, np.array([[True] * 4]))[1] == [1]


def test_scores_that_are_no_numbers_find_nothing():
    scores = np.full((4, 4), np.nan)
    assert of_scores(scores, np.eye(4, dtype=bool)) == ([4] * 4, [4] * 4)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), n=st.integers(1, 6), c=st.integers(1, 9), height=st.integers(1, 7), width=st.integers(1, 10))
def test_ranks_agree_with_their_definition_in_any_tiles(data, n, c, height, width):
    # Few distinct scores, so that ties are common.
    cells = st.lists(st.lists(st.integers(0, 3), min_size=c, max_size=c), min_size=n, max_size=n)
    scores = np.array(data.draw(cells), dtype=np.float64)
    right = np.array(data.draw(cells)) == 0
    right[:, 0] |= ~right.any(axis=1)
    right[0] |= ~right.any(axis=0)
    captions, images = of_scores(scores, right, tile=(height, width))
    assert captions == plain_ranks(scores.T, right.T)
    assert images == plain_ranks(scores, right)


@pytest.mark.parametrize("tile", [(240, 2048), (7, 3), (1, 1)])
def test_captions_with_the_same_words_tie_to_the_last_bit(tile):
    rng = np.random.default_rng(1)
    images = rng.normal(size=(11, 37)).astype(np.float32)
    texts = rng.normal(size=(5, 37)).astype(np.float32)
    text_of = np.array([3, 0, 1, 2, 4, 0, 1, 2, 3, 4, 0])
    _, ranks = ranks_both_ways(images, texts, text_of, np.arange(11), np.arange(11), tile=tile)
    scores = images.astype(np.float64) @ texts.T.astype(np.float64)
    for i in range(11):
        better = (scores[i] > scores[i, text_of[i]])[text_of].sum()
        copies = (text_of == text_of[i]).sum() - 1
        assert ranks[i] == 1 + better + copies


def unit_vectors(num_images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, two captions near each of them, and the image of each caption."""
    rng = np.random.default_rng(5)
    images = rng.normal(size=(num_images, 16))
    owner = np.repeat(np.arange(num_images), 2)
    texts = images[owner] + 1.5 * rng.normal(size=(2 * num_images, 16))
    return images / np.linalg.norm(images, axis=1)[:, None], texts / np.linalg.norm(texts, axis=1)[:, None], owner


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_is_that_of_scikit_learn_and_torchmetrics(k):
    ensure_torchvision()  # torchmetrics imports it
    from torchmetrics.functional import retrieval as reference

    images, texts, owner = unit_vectors(30)
    captions, ranks = ranks_both_ways(images, texts, np.arange(60), np.arange(60), owner)
    scores = images @ texts.T
    # One right image for a caption: recall at k is top-k accuracy over the images as classes.
    assert metrics.hits(captions, k).mean() == pytest.approx(
        top_k_accuracy_score(owner, scores.T, k=k, labels=np.arange(30))
    )
    rates = [
        reference.retrieval_hit_rate(torch.from_numpy(scores[i]), torch.from_numpy(owner == i), top_k=k)
        for i in range(30)
    ]
    assert metrics.hits(ranks, k).mean() == pytest.approx(float(torch.stack(rates).mean()))
    recalls = [
        reference.retrieval_recall(torch.from_numpy(scores[:, j].copy()), torch.from_numpy(np.arange(30) == i), top_k=k)
        for j, i in enumerate(owner)
    ]
    assert metrics.hits(captions, k).mean() == pytest.approx(float(torch.stack(recalls).mean()))


def test_kept_tiles_and_tiles_computed_twice_give_the_same_ranks(monkeypatch):
    images, texts, owner = unit_vectors(30)
    given = (images, texts, np.arange(60), np.arange(60), owner)
    kept = ranks_both_ways(*given, tile=(7, 11))
    for room in (0, 1500):
        monkeypatch.setattr(ranking, "_KEPT_BYTES", room)
        for ours, theirs in zip(ranks_both_ways(*given, tile=(7, 11)), kept, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_every_query_needs_a_right_candidate():
    with pytest.raises(ValueError, match="each caption and each image at least once"):
        ranks_both_ways(np.eye(2), np.eye(2), np.arange(2), np.array([0, 1]), np.array([0, 0]))


@pytest.mark.parametrize("tile", [(0, 5), (256, 5), (3, 0)])
def test_a_tile_that_cannot_be_counted_in_bytes_is_refused(tile):
    with pytest.raises(ValueError, match="1 to 255 images"):
        ranks_both_ways(np.eye(2), np.eye(2), np.arange(2), np.arange(2), np.arange(2), tile=tile)
