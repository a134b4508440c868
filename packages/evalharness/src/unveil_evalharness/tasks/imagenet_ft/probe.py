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
_ROWS = 65_536
"""Images whose logits are in memory at once; the gradient is summed over such blocks."""


def logistic_head(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    num_classes: int,
    penalty: float,
    max_steps: int = _STEPS,
) -> nn.Linear:
    """The linear layer that minimises cross-entropy plus ``penalty / 2 * |weight|^2`` over standardised features.

    Args:
        features: of the training images; float64 fits more exactly than float32.
        labels: their classes.
        num_classes: outputs of the layer; classes without an image are allowed.
        penalty: on the weights for features of unit variance. scikit-learn's ``C`` is ``1 / (penalty * n)``.
        max_steps: of L-BFGS, which ends earlier when it no longer gains.

    Returns:
        A layer in the type of the features, for the features as they are: the standardisation is folded into it.
    """
    mean, spread = features.mean(dim=0), features.std(dim=0, correction=0).clamp_min(1e-6)
    inputs = (features - mean) / spread
    options = {"device": features.device, "dtype": features.dtype}
    weight = torch.zeros(num_classes, features.shape[1], requires_grad=True, **options)
    bias = torch.zeros(num_classes, requires_grad=True, **options)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=max_steps, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimiser.zero_grad()
        total = penalty / 2 * weight.square().sum()
        total.backward()
        for begin in range(0, len(inputs), _ROWS):
            block = slice(begin, begin + _ROWS)
            logits = functional.linear(inputs[block], weight, bias)
            loss = functional.cross_entropy(logits, labels[block], reduction="sum") / len(inputs)
            loss.backward()
            total = total.detach() + loss.detach()
        return total

    optimiser.step(objective)
    head = nn.Linear(features.shape[1], num_classes, **options)
    with torch.no_grad():
        head.weight.copy_(weight / spread)
        head.bias.copy_(bias - (weight / spread) @ mean)
    return head
