"""AdamW with the parameter groups of the masked pre-training papers."""

from collections.abc import Set

import torch
from torch import nn

__all__ = ["build_optimizer", "parameter_groups", "set_learning_rate"]


def parameter_groups(module: nn.Module, *, weight_decay: float, without_decay: Set[str]) -> list[dict[str, object]]:
    """Decayed weights; biases, norms, tokens and whatever `without_decay` names; scalars, where there are any.

    Scalars are a group of their own because they stay whole where all others are shards (`parallel.shard`), and an
    optimiser updates a group at once.

    Args:
        module: The model; frozen parameters are left out.
        weight_decay: Decay of the first group.
        without_decay: Full names of further parameters to exempt, such as position embeddings.

    Returns:
        AdamW's parameter groups; the order within a group is the module's, so that it can be saved and restored.

    Raises:
        ValueError: `without_decay` names a parameter that the module lacks.
    """
    named = {name: value for name, value in module.named_parameters() if value.requires_grad}
    unknown = sorted(without_decay - {name for name, _ in module.named_parameters()})
    if unknown:
        raise ValueError(f"without_decay names parameters that do not exist: {', '.join(unknown)}")
    scalars = [value for value in named.values() if value.ndim == 0]
    exempt = [value for name, value in named.items() if value.ndim == 1 or (value.ndim > 1 and name in without_decay)]
    decayed = [value for name, value in named.items() if value.ndim > 1 and name not in without_decay]
    groups = [(decayed, weight_decay), (exempt, 0.0), *([(scalars, 0.0)] if scalars else [])]
    return [{"params": parameters, "weight_decay": decay} for parameters, decay in groups]


def build_optimizer(
    module: nn.Module, *, weight_decay: float, betas: tuple[float, float], without_decay: Set[str]
) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`; the learning rate is set at every step by `set_learning_rate`."""
    groups = parameter_groups(module, weight_decay=weight_decay, without_decay=without_decay)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=1e-8)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` for the next update of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
