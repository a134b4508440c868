"""What `train_step` needs of a run, around an objective that is there: for benchmarks of whole updates."""

from types import SimpleNamespace
from typing import Any, Final

import torch
from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.inputs import Normaliser
from unveil_pretrain.objectives.base import Objective
from unveil_pretrain.optim import build_optimizer
from unveil_pretrain.step import GradientStep
from unveil_pretrain.stochastic_depth import StochasticDepth
from unveil_pretrain.world import World

__all__ = ["bare_run"]

_ALONE: Final = World()


def bare_run(
    objective: Objective, config: MimConfig | FlipConfig, device: torch.device, *, world: World = _ALONE
) -> SimpleNamespace:
    """Return a run without folder, data and validation, to be given to `train_step` as one.

    Args:
        objective: The model, on the device; in shards where it is to train in shards.
        config: Rates, decay, clipping, precision, and the samples of a step over all processes.
        device: Where this process computes.
        world: The processes, connected.
    """
    objective.train()
    normalise: Any = Normaliser(mean=config.pixel_mean, std=config.pixel_std, device=device)
    return SimpleNamespace(
        config=config,
        world=world,
        objective=objective,
        optimizer=build_optimizer(
            objective, weight_decay=config.weight_decay, betas=config.betas, without_decay=objective.no_weight_decay()
        ),
        gradients=GradientStep(
            objective=objective,
            depth=StochasticDepth.install(objective),
            normalise=normalise,
            world=world,
            device=device,
            seed=config.seed,
            bfloat16=config.precision == "bfloat16",
        ),
    )
