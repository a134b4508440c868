"""The head that fine-tuning starts from solves its convex problem and is expressed for the raw features."""

import pytest
import torch
from torch.nn import functional
from unveil_evalharness.tasks.imagenet_ft.probe import logistic_head


@pytest.fixture
def separable():
    """Three classes around three points, on features of very different scale and offset."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    points = centres[labels] + torch.randn(60, 2, generator=generator)
    return points * torch.tensor([100.0, 0.01]) + torch.tensor([5000.0, 3.0]), labels


def objective(head, features, labels, penalty):
    """What the head minimises, from its weights for raw features."""
    spread = features.std(dim=0, correction=0)
    return functional.cross_entropy(head(features), labels) + penalty / 2 * (head.weight * spread).square().sum()


def test_separable_classes_are_separated(separable):
    features, labels = separable
    head = logistic_head(features, labels, num_classes=3, penalty=1e-3)
    assert (head(features).argmax(dim=1) == labels).float().mean() > 0.9


def test_the_gradient_vanishes_at_the_solution(separable):
    features, labels = separable
    head = logistic_head(features, labels, num_classes=3, penalty=1e-2)
    spread = features.std(dim=0, correction=0)
    gradient, bias_gradient = torch.autograd.grad(objective(head, features, labels, 1e-2), [head.weight, head.bias])
    # In standardised coordinates; the raw bias moves with the mean, so its gradient vanishes as well.
    assert bias_gradient.abs().max() < 1e-3
    assert ((gradient - bias_gradient[:, None] * features.mean(dim=0)) / spread).abs().max() < 2e-3


def test_a_larger_penalty_gives_smaller_weights(separable):
    features, labels = separable
    sizes = [
        logistic_head(features, labels, num_classes=3, penalty=penalty).weight.norm().item() for penalty in (1e-3, 1.0)
    ]
    assert sizes[1] < 0.5 * sizes[0]


def test_constant_features_and_absent_classes_are_allowed():
    head = logistic_head(torch.ones(6, 3), torch.tensor([0, 0, 0, 0, 2, 2]), num_classes=4, penalty=1e-2)
    probabilities = head(torch.ones(1, 3)).softmax(dim=1)[0]
    assert torch.isfinite(probabilities).all()
    assert probabilities[0].item() == pytest.approx(2 / 3, abs=0.02)
    assert probabilities[1].item() < 0.02
