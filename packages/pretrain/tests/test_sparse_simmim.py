"""Sparse SimMIM: SimMIM's masks and targets, hidden units that nobody computes, and a loss by the formula."""

from dataclasses import replace

import pytest
import torch
from unveil_backbones import create
from unveil_backbones.position import sin_cos_position
from unveil_backbones.swin_sparse import encode_units
from unveil_masking import Grid, RatioError
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.simmim import SimMIMConfig
from unveil_pretrain.objectives.sparse_simmim import SparseSimMIMConfig
from unveil_pretrain.targets import normalise_by_window

SMALL = SparseSimMIMConfig(decoder_width=32, decoder_heads=2, target_window=9)
SIZE = (96, 128)


def inputs(num=3, size=SIZE):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(num, 3, *size, generator=generator) + torch.linspace(0, 2, size[1])
    return Inputs(images, torch.arange(num) + 7, torch.zeros(num, dtype=torch.int64), None)


def build(config=SMALL, encoder="swinv2_tiny", size=SIZE):
    torch.manual_seed(0)
    context = BuildContext(
        encoder=create(encoder, image_size=size), image_size=size, captions=lambda _: [], tokenizer_json=None
    )
    objective = config.build(context).eval()
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return objective


@pytest.fixture(scope="module")
def sparse():
    return build()


@pytest.mark.parametrize("window", [0, 9])
def test_loss_of_each_sample_by_the_formula(sparse, window):
    batch = inputs()
    sparse.target_window = window
    with torch.no_grad():
        found = sparse(batch, seed=3)
        partition = sparse.strategy.sample(Grid(3, 4), batch.sample_ids, seed=3, epoch=0)
        target = normalise_by_window(batch.images, window) if window else batch.images
        decoder, positions = sparse.decoder, sparse_positions(sparse)
        expected = []
        for row in range(3):
            visible = (~partition.mask[row]).nonzero()[:, 0]
            hidden = partition.mask[row].nonzero()[:, 0]
            latent = encode_units(sparse.encoder, batch.images[row, None], visible[None], side=32)
            tokens = torch.zeros(1, 12, decoder.width)
            tokens[0, visible] = decoder.project(latent)[0] + positions[visible]
            tokens[0, hidden] = decoder.mask_token + positions[hidden]
            for block in decoder.blocks:
                tokens = block(tokens)
            cells = decoder.predict(decoder.norm(tokens))[0].view(3, 4, 3, 32, 32)
            maps = cells.permute(2, 0, 3, 1, 4).reshape(3, 96, 128)
            mask = partition.mask[row].view(3, 4).repeat_interleave(32, 0).repeat_interleave(32, 1)
            expected.append((maps - target[row]).abs()[:, mask].mean())
    sparse.target_window = 9
    torch.testing.assert_close(found.per_sample, torch.stack(expected), rtol=1e-4, atol=1e-6)
    assert partition.num_hidden == 8  # ceil(0.6 · 12)
    assert found.num_tokens == 3 * 4 * 64


def sparse_positions(objective):
    return sin_cos_position(3, 4, objective.decoder.width, base_rows=3, base_cols=4)


def test_masks_are_those_of_simmim_with_the_same_seed(sparse):
    dense = build(SimMIMConfig(mask_unit=32))
    ids = torch.arange(20)
    units = sparse.strategy.sample(Grid(3, 4), ids, seed=5, epoch=2).mask.view(-1, 3, 4)
    tokens = dense.strategy.sample(Grid(24, 32), ids, seed=5, epoch=2).mask.view(-1, 24, 32)
    assert torch.equal(units.repeat_interleave(8, 1).repeat_interleave(8, 2), tokens)
    assert sparse.card().mask == dense.card().mask
    assert sparse.card().realised_ratio == dense.card().realised_ratio
    assert build(replace(SMALL, target_window=0)).card().target_normalisation == "none"


def test_a_sample_is_alone(sparse):
    batch = inputs()
    order = torch.tensor([2, 0, 1])
    shuffled = replace(
        batch, images=batch.images[order], sample_ids=batch.sample_ids[order], epochs=batch.epochs[order]
    )
    one = replace(batch, images=batch.images[1:2], sample_ids=batch.sample_ids[1:2], epochs=batch.epochs[1:2])
    with torch.no_grad():
        losses = sparse(batch, seed=3).per_sample
        torch.testing.assert_close(sparse(shuffled, seed=3).per_sample, losses[order], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(sparse(one, seed=3).per_sample, losses[1:2], rtol=1e-5, atol=1e-6)


def test_hidden_pixels_are_targets_and_nothing_else(sparse):
    batch = inputs()
    sparse.target_window = 0
    mask = sparse.strategy.sample(Grid(3, 4), batch.sample_ids, seed=3, epoch=0).mask.view(-1, 1, 3, 4)
    hidden = mask.repeat_interleave(32, 2).repeat_interleave(32, 3)
    other = replace(batch, images=torch.where(hidden, batch.images + 100.0, batch.images))
    seen = []
    handle = sparse.decoder.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        losses = [sparse(item, seed=3).per_sample for item in (batch, other)]
    handle.remove()
    sparse.target_window = 9
    assert torch.equal(seen[0], seen[1])
    assert (losses[1] - losses[0] > 90).all()


def test_gradients_reach_everything(sparse):
    sparse.zero_grad()
    sparse(inputs(), seed=3).per_sample.mean().backward()
    assert all(parameter.grad is not None for parameter in sparse.parameters())
    assert sparse.no_weight_decay() == {f"encoder.{name}" for name in sparse.encoder.no_weight_decay()}


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="vit_tiny is none"):
        build(encoder="vit_tiny", size=(64, 64))
    with pytest.raises(RatioError, match="hides all 1 units"):
        build(size=(32, 32))
    for settings in (
        {"mask_ratio": 0.0}, {"target_window": 8}, {"decoder_width": 30}, {"decoder_depth": 0}
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(settings))):
            SparseSimMIMConfig(**settings)
