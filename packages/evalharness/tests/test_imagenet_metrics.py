"""Accuracies, their errors, baselines and the confusion: by hand, and as scikit-learn and torchmetrics count them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from unveil_evalharness.tasks.imagenet_ft.metrics import (
    accuracy,
    confusion,
    majority_accuracy,
    majority_mean_per_class,
    mean_per_class,
    precision,
    recall,
)


def test_three_of_four_correct():
    value, error = accuracy(np.array([True, True, False, True]))
    assert value == 0.75
    assert error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)


def test_a_perfect_score_has_no_binomial_error():
    assert accuracy(np.ones(3, dtype=bool)) == (1.0, 0.0)


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="at least one image"):
        accuracy(np.zeros(0, dtype=bool))


def test_the_majority_is_that_of_the_training_set():
    train, val = np.array([2, 2, 2, 0, 1, 1]), np.array([0, 0, 0, 2])
    assert majority_accuracy(train, val, num_classes=4, k=1) == 0.25
    assert majority_accuracy(train, val, num_classes=4, k=2) == 0.25
    assert majority_accuracy(train, val, num_classes=4, k=3) == 1.0


def test_ties_go_to_the_first_class():
    assert majority_accuracy(np.array([1, 0]), np.array([0, 0, 1, 1, 1]), num_classes=2, k=1) == 0.4


def test_mean_per_class_weighs_rare_classes_as_much_as_common_ones():
    labels, correct = np.array([0, 0, 0, 0, 1, 1]), np.array([True, True, True, False, True, False])
    value, error = mean_per_class(labels, correct, num_classes=3)
    assert value == pytest.approx((0.75 + 0.5) / 2), "the class without images does not count"
    assert error == pytest.approx(np.sqrt(0.75 * 0.25 / 4 + 0.5 * 0.5 / 2) / 2)


def test_always_naming_one_class_recalls_one_of_those_present():
    train, val = np.array([2, 2, 1]), np.array([0, 0, 0, 2, 1])
    assert majority_mean_per_class(train, val, num_classes=4) == pytest.approx(1 / 3)


def test_the_confusion_counts_pairs():
    counts = confusion(np.array([0, 0, 1]), np.array([1, 0, 1]), num_classes=3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert recall(counts)[:2].tolist() == [0.5, 1.0]
    assert precision(counts)[:2].tolist() == [1.0, 0.5]
    assert np.isnan(recall(counts)[2]), "no image, no recall"


@settings(deadline=None)  # the first call of scikit-learn imports much
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_scores_are_those_of_scikit_learn(pairs):
    labels, predictions = np.array(pairs).T
    counts = confusion(labels, predictions, num_classes=5)
    names = list(range(5))
    assert np.array_equal(counts, reference.confusion_matrix(labels, predictions, labels=names))
    value, _ = mean_per_class(labels, labels == predictions, num_classes=5)
    present = sorted(set(labels.tolist()))
    options = {"labels": present, "average": "macro", "zero_division": 0.0}
    assert value == pytest.approx(reference.recall_score(labels, predictions, **options))
    found = np.nan_to_num(precision(counts))
    expected = reference.precision_score(labels, predictions, labels=names, average=None, zero_division=0.0)
    assert found == pytest.approx(expected)


def test_scores_are_those_of_torchmetrics():
    import torch
    import unveil_backbones

    unveil_backbones.ensure_torchvision()
    from torchmetrics.functional.classification import multiclass_accuracy

    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(200, 12, generator=generator), torch.arange(200) % 12
    ranked = scores.topk(5, dim=1).indices.numpy()
    hits = ranked == labels.numpy()[:, None]
    for k in (1, 5):
        expected = multiclass_accuracy(scores, labels, num_classes=12, average="micro", top_k=k)
        assert accuracy(hits[:, :k].any(axis=1))[0] == pytest.approx(float(expected))
    expected = multiclass_accuracy(scores, labels, num_classes=12, average="macro")
    assert mean_per_class(labels.numpy(), hits[:, 0], num_classes=12)[0] == pytest.approx(float(expected))
