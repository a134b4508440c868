"""Losses of foreign files against the forward passes of their papers, written out once more from the files' names."""

from functools import partial
from pathlib import Path

import pytest
import torch
from foreign_files import mae_state, simmim_state
from torch import nn
from unveil_backbones import convert, load
from unveil_masking import Grid
from unveil_pretrain.objectives.base import Inputs
from unveil_pretrain.restoring import restore_objective

SEED = 3


def restored(state: dict[str, torch.Tensor], folder: Path, **settings: object):
    torch.save({"model": state}, folder / "file.pth")
    convert(folder / "file.pth", folder / "ours")
    return restore_objective(load(folder / "ours"), settings)[1]


def inputs_of(side: int) -> Inputs:
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    ids, epochs = torch.tensor([11, 12]), torch.zeros(2, dtype=torch.int64)
    return Inputs(images=images, sample_ids=ids, epochs=epochs, captions=None)


def patches_of(images: torch.Tensor, side: int) -> torch.Tensor:
    """Rows of patches in raster order, each row by row with the channels of a pixel together."""
    cut = nn.functional.unfold(images, side, stride=side).transpose(1, 2)
    return cut.unflatten(2, (3, side * side)).transpose(2, 3).flatten(2)


@torch.no_grad()
@pytest.mark.parametrize("normalised", [True, False])
def test_mae_files_have_the_loss_of_the_paper(normalised, tmp_path):
    from timm.models.vision_transformer import Block

    state = mae_state(width := 32)
    objective = restored(state, tmp_path, normalise_target=normalised)
    inputs = inputs_of(32)
    ours = objective(inputs, seed=SEED).per_sample

    partition = objective.strategy.sample(Grid(4, 4), inputs.sample_ids, seed=SEED, epoch=inputs.epochs)
    latent = objective.encoder.encode(objective.encoder.embed(inputs.images, partition.keep), (4, 4), partition.keep)
    tokens = nn.functional.linear(latent, state["decoder_embed.weight"], state["decoder_embed.bias"])
    full = state["mask_token"].repeat(2, 16, 1)
    full.scatter_(1, partition.keep[:, :, None].expand(-1, -1, width), tokens[:, 1:])
    tokens = torch.cat([tokens[:, :1], full], dim=1) + state["decoder_pos_embed"]
    block = Block(width, 1, 4.0, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6)).eval()
    name = "decoder_blocks.0."
    block.load_state_dict({key.removeprefix(name): value for key, value in state.items() if key.startswith(name)})
    tokens = nn.functional.layer_norm(
        block(tokens), (width,), state["decoder_norm.weight"], state["decoder_norm.bias"], eps=1e-6
    )
    predicted = nn.functional.linear(tokens, state["decoder_pred.weight"], state["decoder_pred.bias"])[:, 1:]
    target = patches_of(inputs.images, 8)
    if normalised:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    errors = (predicted - target).square().mean(-1)
    expected = (errors * partition.mask).sum(1) / partition.mask.sum(1)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_simmim_files_have_the_loss_of_the_paper(tmp_path):
    state = simmim_state()
    state["encoder.mask_token"] = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(1))
    objective = restored(state, tmp_path, target_window=0)
    inputs = inputs_of(64)
    ours = objective(inputs, seed=SEED).per_sample

    partition = objective.strategy.sample(Grid(16, 16), inputs.sample_ids, seed=SEED, epoch=inputs.epochs)
    mask = partition.mask[:, :, None].float()
    tokens = objective.encoder.embed(inputs.images)
    tokens = tokens * (1.0 - mask) + state["encoder.mask_token"] * mask
    features = objective.encoder.encode(tokens, (16, 16)).transpose(1, 2).unflatten(2, (2, 2))
    decoded = nn.functional.conv2d(features, state["decoder.0.weight"], state["decoder.0.bias"])
    predicted = nn.functional.pixel_shuffle(decoded, 32)
    pixels = partition.mask.unflatten(1, (16, 16)).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None].float()
    errors = ((predicted - inputs.images).abs() * pixels).sum((1, 2, 3))
    torch.testing.assert_close(ours, errors / (3 * pixels.sum((1, 2, 3))), rtol=1e-5, atol=1e-6)
