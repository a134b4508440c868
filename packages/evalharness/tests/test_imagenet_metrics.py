"""Accuracy, its error and the majority baseline, by hand."""

import numpy as np
import pytest
from unveil_evalharness.tasks.imagenet_ft.metrics import accuracy, majority_accuracy


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
