"""Stochastic depth (arXiv:1603.09382) without a generator: a function of (seed, epoch, sample, block) drops branches.

So a step has the same result however its batch is cut into micro-batches and dealt out to processes, and a block that
is computed again in the backward pass, or in the second pass of gradient caching, drops the same samples.

Shapes: b samples, r rows of tokens (a multiple of b where an objective encodes several views of a batch).
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from unveil_masking import noise

from unveil_pretrain.data.streams import DROP_STREAM
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import Inputs

__all__ = ["SampleDropPath", "StochasticDepth"]


class SampleDropPath(nn.Module):
    """Drops whole rows of a residual branch and scales the others by 1 / (1 − probability), in training mode only.

    Has no parameters and stands where timm's DropPath stood, so that no tensor of a checkpoint changes.
    """

    def __init__(self, probability: float) -> None:
        """Prepare a branch that is dropped with this probability, in [0, 1)."""
        super().__init__()
        self.probability = probability
        self.factors: Float[Tensor, " b"] | None = None

    def forward(self, x: Float[Tensor, "r *rest"]) -> Float[Tensor, "r *rest"]:
        """Scale each row by its sample's factor; r is b, or several views of the batch one after the other.

        Raises:
            ConfigError: nobody said which samples these are, or the rows are no multiple of them.
        """
        if not self.training or self.probability == 0.0:
            return x
        factors = self.factors
        if factors is None or x.shape[0] % len(factors):
            known = 0 if factors is None else len(factors)
            raise ConfigError(
                f"stochastic depth got {x.shape[0]} rows and knows {known} samples; call StochasticDepth.choose with "
                "the inputs first, and encode all of their views one after the other"
            )
        if x.shape[0] != len(factors):
            factors = factors.repeat(x.shape[0] // len(factors))
        return x * factors.view(-1, *(1,) * (x.dim() - 1)).to(x.dtype)


@dataclass(frozen=True, slots=True)
class StochasticDepth:
    """All branches of a model that may be dropped, in the order of its modules."""

    branches: tuple[SampleDropPath, ...]

    @classmethod
    def install(cls, model: nn.Module) -> "StochasticDepth":
        """Put `SampleDropPath` in the place of every DropPath of timm in `model`.

        Raises:
            ConfigError: the model holds dropout of single values, which would depend on the composition of batches.
        """
        found: list[SampleDropPath] = []
        for parent_name, parent in list(model.named_modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.modules.dropout._DropoutNd) and child.p > 0.0:
                    raise ConfigError(
                        f"{parent_name}.{name} drops single values from a generator with state, so a run could not be "
                        "continued exactly; use stochastic depth (drop_path) instead"
                    )
                if type(child).__name__ == "DropPath":  # timm cannot be imported before torchvision is made importable
                    branch = SampleDropPath(float(cast(float, child.drop_prob)))
                    setattr(parent, name, branch.train(child.training))
                    found.append(branch)
        return cls(tuple(found))

    def choose(self, inputs: Inputs, *, seed: int) -> None:
        """Decide which of these samples each branch drops, until the next call."""
        live = [index for index, branch in enumerate(self.branches) if branch.probability > 0.0]
        if not live:
            return
        index = torch.tensor(live, device=inputs.sample_ids.device) + DROP_STREAM
        drawn = _uniform(seed, inputs.epochs, inputs.sample_ids, index)
        for column, number in enumerate(live):
            branch = self.branches[number]
            keep = 1.0 - branch.probability
            branch.factors = (drawn[:, column] < keep).to(torch.float32) / keep


def _uniform(
    seed: int, epochs: Int64[Tensor, " b"], sample_ids: Int64[Tensor, " b"], index: Int64[Tensor, " n"]
) -> Float[Tensor, "b n"]:
    return noise(seed, epochs, sample_ids, index).double() / 2.0**32
