"""A head to start fine-tuning from: logistic regression on the frozen encoder's features.

Fine-tuning from a linear probe, "LP-FT" (Kumar et al., arXiv 2202.10054), spends no step on finding a head and does not
distort the features with the gradients of a random one. In a run of a few dozen steps that decides whether the
number says anything about the encoder.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["logistic_head"]

_STEPS = 100


def logistic_head(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], *, num_classes: int, penalty: float
) -> nn.Linear:
    """The linear layer that minimises cross-entropy plus ``penalty / 2 * |weight|^2`` over standardised features.

    Args:
        features: of the training images.
        labels: their classes.
        num_classes: outputs of the layer; classes without an image are allowed.
        penalty: on the weights for features of unit variance.

    Returns:
        A layer for the features as they are: the standardisation is folded into it.
    """
    mean, spread = features.mean(dim=0), features.std(dim=0, correction=0).clamp_min(1e-6)
    inputs = (features - mean) / spread
    weight = torch.zeros(num_classes, features.shape[1], device=features.device, requires_grad=True)
    bias = torch.zeros(num_classes, device=features.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(functional.linear(inputs, weight, bias), labels)
        loss = loss + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(objective)
    head = nn.Linear(features.shape[1], num_classes)
    with torch.no_grad():
        head.weight.copy_(weight / spread)
        head.bias.copy_(bias - (weight / spread) @ mean)
    return head
