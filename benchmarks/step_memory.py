"""Predicted against measured memory of a training step on the CPU: `python -m benchmarks.step_memory RECIPE SAMPLES`.

One pair per process: peak resident memory belongs to a process. Measured is the peak above what was resident before the
model was built, after a small step and two whole ones.
"""

import sys

import torch
from unveil_backbones import create
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.optim import build_optimizer
from unveil_pretrain.planning.memory import step_memory
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES

from benchmarks._memory import high_water_mark, resident

__all__ = ["main"]

_MIB = 2**20


def main(recipe: str, num_samples: int) -> None:
    """Print one line for a recipe and a micro-batch."""
    config = {**MIM_RECIPES, **FLIP_RECIPES}[recipe]()
    predicted = step_memory(config, micro_batch=num_samples, device="cpu").total
    captions = [f"a {colour} thing on table {number}" for number in range(200) for colour in ("red", "green")]
    before = resident()
    objective = config.objective.build(
        BuildContext(
            encoder=create(config.encoder, image_size=config.image_size),
            image_size=config.image_size,
            captions=lambda most: captions[:most],
            tokenizer_json=None,
        )
    ).train()
    optimizer = build_optimizer(
        objective, weight_decay=config.weight_decay, betas=config.betas, without_decay=objective.no_weight_decay()
    )
    for size in (2, num_samples, num_samples):
        pixels = torch.randint(256, (size, 3, *config.image_size), dtype=torch.uint8)
        texts = [captions[index % len(captions)] for index in range(size)] if config.objective.needs_captions else None
        inputs = Inputs(pixels.float() / 255, torch.arange(size), torch.zeros(size, dtype=torch.int64), texts)
        objective(inputs, seed=0).per_sample.mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    measured = high_water_mark() - before
    print(
        f"{recipe}, {num_samples} samples: predicted {predicted / _MIB:,.0f} MB, measured {measured / _MIB:,.0f} MB, "
        f"ratio {predicted / measured:.2f}"
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
