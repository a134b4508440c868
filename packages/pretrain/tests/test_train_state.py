"""The tensors of an optimiser by name."""

import pytest
import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from unveil_backbones import create
from unveil_pretrain.objectives.base import BuildContext
from unveil_pretrain.optim import build_optimizer
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES
from unveil_pretrain.train_state import optimizer_tensors

TINY = {name: make for name, make in {**MIM_RECIPES, **FLIP_RECIPES}.items() if name.startswith("tiny_")}


@pytest.mark.parametrize("recipe", TINY)
def test_names_are_those_of_pytorch(recipe):
    """PyTorch's function searches for names each time, which a step would wait for; ours has to find the same ones."""
    config = TINY[recipe]()
    encoder = create(config.encoder, image_size=config.image_size)
    context = BuildContext(
        encoder,
        config.image_size,
        captions=lambda most: ["a red field"],
        tokenizer_json=None,
        images=lambda most: iter(torch.rand(1, most, 3, *config.image_size)),
    )
    objective = config.objective.build(context)
    optimizer = build_optimizer(objective, weight_decay=0.05, betas=(0.9, 0.95), without_decay=set())
    fresh = optimizer_tensors(objective, optimizer)
    assert fresh  # PyTorch fills it first
    assert all(not value.any() for name, value in fresh.items() if name.startswith("exp_"))
    trained = [value for value in objective.parameters() if value.requires_grad]
    for parameter in trained[1:]:  # one never had a gradient
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    found = optimizer_tensors(objective, optimizer)
    state = get_optimizer_state_dict(objective, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True))
    theirs = {name: value for name, value in state.items() if name.startswith("state.")}
    assert len(found) == len(theirs) == 3 * len(trained)
    for name, value in found.items():
        key, _, parameter = name.partition("/")
        assert theirs[f"state.{parameter}.{key}"] is value
