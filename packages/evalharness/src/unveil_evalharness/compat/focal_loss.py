"""Focal losses (Lin et al. 2017) as ``mmcv._ext`` offers them: per element, forward and backward apart.

mmcv itself has no CPU kernel for them. Gradients come from autograd on the forward formula, so that the two can
not disagree. The classes are ``0 … c - 1``; the sigmoid form takes ``c`` as background.

Shape legend: n samples, c classes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from unveil_evalharness.compat.kernels import at_least_float32

__all__ = [
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softmax_focal_loss_backward",
    "softmax_focal_loss_forward",
]

_SMALLEST = torch.finfo(torch.float32).tiny  # the floor of mmcv's kernels inside the logarithm


def sigmoid_focal_loss_forward(
    input: Float[Tensor, "n c"],
    target: Int[Tensor, " n"],
    weight: Float[Tensor, " classes"],
    output: Float[Tensor, "n c"],
    gamma: float,
    alpha: float,
) -> None:
    """Writes ``-α (1-p)^γ log p`` (true class) and ``-(1-α) p^γ log(1-p)`` (others) to `output`, p = sigmoid.

    Args:
        input: logits.
        target: class of each sample; ``c`` means background.
        weight: one factor per class of the target, or empty.
        output: receives the losses.
        gamma: focusing exponent γ.
        alpha: weight α of the positives.
    """
    output.copy_(_sigmoid_loss(at_least_float32(input), target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    input: Float[Tensor, "n c"],
    target: Int[Tensor, " n"],
    weight: Float[Tensor, " classes"],
    grad_input: Float[Tensor, "n c"],
    gamma: float,
    alpha: float,
) -> None:
    """Writes the derivative of each loss by its logit to `grad_input`; arguments as in the forward function."""
    with torch.enable_grad():
        logits = at_least_float32(input.detach()).requires_grad_()
        total = _sigmoid_loss(logits, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(total, logits)[0])


def softmax_focal_loss_forward(
    softmax: Float[Tensor, "n c"],
    target: Int[Tensor, " n"],
    weight: Float[Tensor, " classes"],
    output: Float[Tensor, " n"],
    gamma: float,
    alpha: float,
) -> None:
    """Writes ``-α (1-p)^γ log p`` to `output`, p the softmax of the true class; 0 where the target is negative.

    Args:
        softmax: probabilities, not logits: mmcv normalises before it calls.
        target: class of each sample, negative to leave it out.
        weight: one factor per class, or empty.
        output: receives the losses.
        gamma: focusing exponent γ.
        alpha: overall factor α.
    """
    log_probability = at_least_float32(softmax).clamp(min=_SMALLEST).log()
    output.copy_(_softmax_loss(log_probability, target, weight, gamma, alpha))


def softmax_focal_loss_backward(
    softmax: Float[Tensor, "n c"],
    target: Int[Tensor, " n"],
    weight: Float[Tensor, " classes"],
    buff: Float[Tensor, " n"],
    grad_input: Float[Tensor, "n c"],
    gamma: float,
    alpha: float,
) -> None:
    """Writes the derivative of each loss by the *logits* to `grad_input`; `buff` is scratch space of the kernel."""
    with torch.enable_grad():
        # log softmax is a valid choice of logits: the softmax of it is the softmax given.
        logits = at_least_float32(softmax.detach()).clamp(min=_SMALLEST).log().requires_grad_()
        total = _softmax_loss(logits.log_softmax(dim=1), target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(total, logits)[0])


def _sigmoid_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    classes = logits.shape[1]
    positive = functional.one_hot(target, classes + 1)[:, :classes].bool()
    probability = logits.sigmoid()
    true = -alpha * (1 - probability) ** gamma * probability.clamp(min=_SMALLEST).log()
    false = -(1 - alpha) * probability**gamma * (1 - probability).clamp(min=_SMALLEST).log()
    return torch.where(positive, true, false) * _class_weight(weight, target, logits)[:, None]


def _softmax_loss(log_probability: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    chosen = log_probability.gather(1, target.clamp(min=0)[:, None])[:, 0]
    loss = -alpha * (1 - chosen.exp()) ** gamma * chosen * _class_weight(weight, target, log_probability)
    return torch.where(target >= 0, loss, torch.zeros_like(loss))


def _class_weight(weight: Tensor, target: Tensor, like: Tensor) -> Tensor:
    """The factor of each sample; 1 for background and ignored samples, which have no class."""
    if weight.numel() == 0:
        return like.new_ones(target.shape)
    known = (target >= 0) & (target < weight.shape[0])
    return torch.where(known, weight[target.clamp(0, weight.shape[0] - 1)].to(like.dtype), like.new_ones(()))
