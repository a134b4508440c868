"""Focal losses against hand-computed values, autograd and torchvision's reference formula."""

import math

import pytest
import torch
import unveil_backbones
from unveil_evalharness.compat import focal_loss

EMPTY = torch.empty(0)
LOGITS = torch.tensor([[0.0, math.log(3.0)], [math.log(3.0), -2.0], [1.0, -1.0]], dtype=torch.float64)


def sigmoid_forward(logits, target, weight=EMPTY, gamma=2.0, alpha=0.25):
    output = torch.zeros_like(logits)
    focal_loss.sigmoid_focal_loss_forward(logits, target, weight, output, gamma, alpha)
    return output


def test_sigmoid_loss_by_hand():
    result = sigmoid_forward(LOGITS, torch.tensor([0, 1, 2]))
    # Sample 0, class 0 true: p = 1/2, 0.25 · (1/2)² · ln 2. Class 1 false: p = 3/4, 0.75 · (3/4)² · ln 4.
    assert result[0, 0].item() == pytest.approx(0.25 * 0.25 * math.log(2))
    assert result[0, 1].item() == pytest.approx(0.75 * 0.5625 * math.log(4))
    # Target 2 of two classes is background: both columns are negatives.
    p = 1 / (1 + math.exp(-1))
    assert result[2, 0].item() == pytest.approx(-0.75 * p**2 * math.log(1 - p))


def test_sigmoid_class_weights_follow_the_target_and_spare_the_background():
    target = torch.tensor([0, 1, 2])
    weighted = sigmoid_forward(LOGITS, target, weight=torch.tensor([2.0, 5.0], dtype=torch.float64))
    factors = torch.tensor([2.0, 5.0, 1.0], dtype=torch.float64)[:, None]
    torch.testing.assert_close(weighted, sigmoid_forward(LOGITS, target) * factors)


def test_sigmoid_gradient_is_the_numerical_one():
    target = torch.tensor([0, 1, 2])
    gradient = torch.zeros_like(LOGITS)
    focal_loss.sigmoid_focal_loss_backward(LOGITS, target, EMPTY, gradient, 2.0, 0.25)
    step = 1e-6
    numerical = (sigmoid_forward(LOGITS + step, target) - sigmoid_forward(LOGITS - step, target)) / (2 * step)
    torch.testing.assert_close(gradient, numerical, rtol=0, atol=1e-8)


def test_sigmoid_agrees_with_torchvision_formula():
    unveil_backbones.ensure_torchvision()
    from torchvision.ops import sigmoid_focal_loss  # plain Python there, so it runs without compiled operators

    logits = torch.randn(50, 7, dtype=torch.float64)
    target = torch.randint(0, 8, (50,))
    expected = sigmoid_focal_loss(logits, torch.nn.functional.one_hot(target, 8)[:, :7].double())
    torch.testing.assert_close(sigmoid_forward(logits, target), expected, rtol=1e-6, atol=1e-12)


def test_sigmoid_survives_extreme_logits():
    logits = torch.tensor([[100.0, -100.0]])
    gradient = torch.zeros_like(logits)
    for target in (torch.tensor([0]), torch.tensor([1])):
        assert sigmoid_forward(logits, target).isfinite().all()
        focal_loss.sigmoid_focal_loss_backward(logits, target, EMPTY, gradient, 2.0, 0.25)
        assert gradient.isfinite().all()


def softmax_forward(probability, target, weight=EMPTY):
    output = probability.new_zeros(len(probability))
    focal_loss.softmax_focal_loss_forward(probability, target, weight, output, 2.0, 0.25)
    return output


def test_softmax_loss_by_hand_and_ignored_targets():
    probability = torch.tensor([[0.25, 0.75], [0.5, 0.5]], dtype=torch.float64)
    result = softmax_forward(probability, torch.tensor([1, -1]))
    assert result.tolist() == pytest.approx([-0.25 * 0.25**2 * math.log(0.75), 0.0])
    weighted = softmax_forward(probability, torch.tensor([1, 0]), torch.tensor([3.0, 2.0], dtype=torch.float64))
    assert weighted[0].item() == pytest.approx(2 * result[0].item())


def test_softmax_gradient_is_the_numerical_one():
    target = torch.tensor([0, 1, -1])
    weight = torch.tensor([2.0, 0.5], dtype=torch.float64)
    gradient = torch.zeros_like(LOGITS)
    focal_loss.softmax_focal_loss_backward(LOGITS.softmax(dim=1), target, weight, torch.zeros(3), gradient, 2.0, 0.25)
    for column in range(2):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[column] = 1e-6
        high = softmax_forward((LOGITS + shift).softmax(dim=1), target, weight)
        low = softmax_forward((LOGITS - shift).softmax(dim=1), target, weight)
        torch.testing.assert_close(gradient[:, column], (high - low) / 2e-6, rtol=0, atol=1e-8)
    assert gradient[2].abs().sum() == 0
