"""Adding an objective takes one class with its settings, and a recipe: here both are in a test, and train."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn
from unveil_backbones import load
from unveil_masking import Grid, RandomMask, take
from unveil_pretrain import recipes
from unveil_pretrain.commands import mim
from unveil_pretrain.loop import train
from unveil_pretrain.objectives.base import LossOutput, Objective, ObjectiveConfig, ValidationCard


@dataclass(frozen=True, kw_only=True, slots=True)
class BrightnessConfig(ObjectiveConfig):
    """Settings of a toy: tell the mean brightness of an image from half of its patches."""

    name: ClassVar[str] = "brightness"

    mask_ratio: float = 0.5
    """Share of patches to hide."""

    def build(self, context):
        return Brightness(context.encoder, RandomMask(self.mask_ratio))


class Brightness(Objective):
    """The toy itself."""

    def __init__(self, encoder, strategy):
        super().__init__()
        self.encoder, self.strategy = encoder, strategy
        self.head = nn.Linear(encoder.width, 1)

    def forward(self, inputs, *, seed):
        sides = self.encoder.grid(*inputs.images.shape[-2:])
        partition = self.strategy.sample(Grid(*sides), inputs.sample_ids, seed=seed, epoch=inputs.epochs)
        pooled = self.encoder.encode_pooled(take(self.encoder.embed(inputs.images), partition), sides, partition.keep)
        error = self.head(pooled)[:, 0] - inputs.images.mean(dim=(1, 2, 3))
        return LossOutput(error.square(), partition.keep.numel())

    def card(self):
        return ValidationCard(
            target_normalisation="none", reduction="samples", mask=self.strategy.describe(), realised_ratio=0.5
        )


@pytest.fixture
def toy(mae_config):
    return replace(
        mae_config, objective=BrightnessConfig(), steps=2, warmup_steps=0, validate_every=1, checkpoint_every=1
    )


def test_a_toy_trains_validates_and_is_saved(toy, shards, tmp_path):
    last = train(
        toy, out=tmp_path / "run", train_data=shards[0], val_data=shards[1], log=print, device="cpu", progress=False
    )
    checkpoint = load(last)
    assert (checkpoint.manifest.objective, checkpoint.manifest.step) == ("brightness", 2)
    assert set(checkpoint.heads) == {"objective.head.weight", "objective.head.bias"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "val.jsonl").read_text().splitlines()]
    assert all(row["loss"] > 0 for row in rows)
    assert torch.isfinite(checkpoint.heads["objective.head.weight"]).all()


def test_a_recipe_of_it_has_its_flags_on_the_command_line(toy, monkeypatch, capsys):
    table = {**recipes.MIM_RECIPES, "toy": lambda: toy}
    monkeypatch.setattr(mim, "MIM_RECIPES", table)
    with pytest.raises(SystemExit):
        mim.run(["toy", "--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--mask-ratio" in words
    assert "Share of patches to hide." in words
