"""Which parameters decay."""

import pytest
import torch
from torch import nn
from unveil_pretrain.optim import build_optimizer, parameter_groups, set_learning_rate


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.token = nn.Parameter(torch.zeros(4))
        self.position = nn.Parameter(torch.zeros(1, 5, 4))
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)


def test_biases_norms_tokens_and_named_parameters_do_not_decay():
    model = Model()
    decayed, exempt = parameter_groups(model, weight_decay=0.05, without_decay={"position"})
    assert [parameter is model.linear.weight for parameter in decayed["params"]] == [True]
    assert len(exempt["params"]) == 5
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.05, 0.0)


def test_a_name_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="positon"):
        parameter_groups(Model(), weight_decay=0.1, without_decay={"positon"})


def test_decay_moves_only_decayed_weights():
    model = Model()
    with torch.no_grad():
        model.token.fill_(1.0)
    optimizer = build_optimizer(model, weight_decay=0.5, betas=(0.9, 0.999), without_decay={"position"})
    set_learning_rate(optimizer, 0.1)
    before = model.linear.weight.clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.linear.weight, before * (1 - 0.1 * 0.5))
    assert torch.equal(model.token, torch.ones(4))
