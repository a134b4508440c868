"""SplitMask against its two formulas, and its halves of forward() against each other."""

import math
from dataclasses import replace

import pytest
import torch
from unveil_backbones import create
from unveil_backbones.position import sin_cos_position
from unveil_masking import Grid
from unveil_pretrain.contrastive import alone
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.splitmask import SplitMaskConfig
from unveil_pretrain.targets import patchify

SMALL = SplitMaskConfig(
    vocab_size=12, decoder_width=32, decoder_heads=2, contrast_weight=0.5, temperature=0.2, negative_pool=3
)


def inputs(num=6, rows=32, cols=32):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(num, 3, rows, cols, generator=generator)
    return Inputs(images, torch.arange(num) + 7, torch.zeros(num, dtype=torch.int64), None)


def part(batch, rows):
    return replace(batch, images=batch.images[rows], sample_ids=batch.sample_ids[rows], epochs=batch.epochs[rows])


def build(config=SMALL, encoder="vit_tiny", size=(32, 32)):
    torch.manual_seed(0)
    context = BuildContext(
        encoder=create(encoder, image_size=size),
        image_size=size,
        captions=lambda _: [],
        tokenizer_json=None,
        images=lambda most: iter([inputs(rows=size[0], cols=size[1]).images[:most]]),
    )
    return config.build(context).eval()


@pytest.fixture(scope="module")
def splitmask():
    return build()


def by_formula(objective, batch, grid, seed=3):
    """Cross-entropy of each sample, and the halves' unit vectors, one sample and one half after the other."""
    encoder, decoder = objective.encoder, objective.decoder
    positions = sin_cos_position(*grid, decoder.width, base_rows=grid[0], base_cols=grid[1])
    num = grid[0] * grid[1]
    mask = objective.strategy.sample(Grid(*grid), batch.sample_ids, seed=seed, epoch=0).mask
    entropies, views = [], ([], [])
    for row in range(len(batch.images)):
        pixels = patchify(batch.images[row : row + 1], 8)[0]
        cosines = torch.nn.functional.cosine_similarity(pixels[:, None], objective.vocabulary.patches[None], dim=2)
        total = 0.0
        for side, hidden in enumerate((mask[row], ~mask[row])):
            kept, asked = (~hidden).nonzero()[:, 0], hidden.nonzero()[:, 0]
            latent = decoder.project(encoder.encode(encoder.embed(batch.images[row, None])[:, kept], grid))
            tokens = torch.zeros(1, 1 + num, decoder.width)
            tokens[:, 0] = latent[:, 0]
            tokens[:, 1 + kept] = latent[:, 1:] + positions[kept]
            tokens[:, 1 + asked] = decoder.mask_token + positions[asked]
            for block in decoder.blocks:
                tokens = block(tokens)
            filled = decoder.norm(tokens)[0, 1 + asked]
            logits = decoder.predict(filled).log_softmax(1)
            total -= float(logits[torch.arange(len(asked)), cosines.argmax(1)[asked]].sum())
            mean = filled.mean(0)
            views[side].append(mean / mean.norm())
        entropies.append(total / num)
    return torch.tensor(entropies), torch.stack(views[0]), torch.stack(views[1])


def info_nce_by_hand(one, other, temperature):
    losses = []
    for row in range(len(one)):
        forth = [math.exp(float(one[row] @ vector) / temperature) for vector in other]
        back = [math.exp(float(other[row] @ vector) / temperature) for vector in one]
        losses.append(-(math.log(forth[row] / sum(forth)) + math.log(back[row] / sum(back))) / 2)
    return torch.tensor(losses)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_loss_by_the_formulas(size):
    objective = build(size=size)
    batch = inputs(4, *size)
    grid = (size[0] // 8, size[1] // 8)
    with torch.no_grad():
        found = objective(batch, seed=3)
        entropy, one, other = by_formula(objective, batch, grid)
    expected = entropy + 0.5 * info_nce_by_hand(one, other, 0.2)
    torch.testing.assert_close(found.per_sample, expected, rtol=1e-4, atol=1e-5)
    assert found.num_tokens == 4 * grid[0] * grid[1]


def test_each_half_is_encoded_without_the_other(splitmask):
    batch = inputs()
    mask = splitmask.strategy.sample(Grid(4, 4), batch.sample_ids, seed=3, epoch=0).mask
    hidden = mask.view(-1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = replace(batch, images=torch.where(hidden, torch.randn_like(batch.images), batch.images))
    with torch.no_grad():
        here, there = (splitmask.encode_samples(item, seed=3) for item in (batch, other))
    torch.testing.assert_close(here.embeddings[0], there.embeddings[0])
    assert not torch.allclose(here.embeddings[1], there.embeddings[1], atol=1e-3)


def test_parts_of_a_batch_and_two_processes_give_the_loss_of_the_whole(splitmask):
    batch = inputs()
    with torch.no_grad():
        whole = splitmask(batch, seed=3).per_sample
        parts = [splitmask.encode_samples(part(batch, rows), seed=3) for rows in (slice(0, 2), slice(2, 6))]
    joined = tuple(torch.cat([encoded.embeddings[side] for encoded in parts]) for side in (0, 1))
    own = torch.cat([encoded.own for encoded in parts])
    torch.testing.assert_close(own + splitmask.compare(joined, first=0, gather=alone), whole)
    assert splitmask.couples_samples
    assert sum(encoded.num_tokens for encoded in parts) == 6 * 16


def test_cross_entropy_does_not_know_the_batch_and_the_contrast_does(splitmask):
    batch = inputs()
    order = torch.tensor([2, 0, 3, 1, 5, 4])
    with torch.no_grad():
        whole, shuffled = (splitmask(item, seed=3).per_sample for item in (batch, part(batch, order)))
        fewer = splitmask(part(batch, slice(0, 3)), seed=3).per_sample
        torch.testing.assert_close(shuffled, whole[order])
        assert (whole[:3] - fewer).min() > 1e-3  # more negatives
        plain = build(replace(SMALL, contrast_weight=0.0))
        torch.testing.assert_close(
            plain(part(batch, slice(0, 3)), seed=3).per_sample, plain(batch, seed=3).per_sample[:3]
        )
    assert not plain.couples_samples
    assert plain.group_size == 1
    assert plain.card().negative_pool == 0


@pytest.mark.parametrize("chunk_size", [1, 4, 6])
def test_validation_compares_within_pools_only(splitmask, chunk_size):
    batch = inputs()
    with torch.no_grad():
        views = splitmask.validation_losses(batch, seed=3, chunk_size=chunk_size)
        pools = torch.cat([splitmask(part(batch, rows), seed=3).per_sample for rows in (slice(0, 3), slice(3, 6))])
    torch.testing.assert_close(views["loss"], pools, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(views["inpainting"] + views["contrast"], views["loss"])
    assert splitmask.group_size == splitmask.card().negative_pool == 3


def test_everything_learns_from_both_terms(splitmask):
    splitmask.zero_grad()
    splitmask(inputs(), seed=3).per_sample.mean().backward()
    assert all(parameter.grad is not None for parameter in splitmask.parameters())


def test_settings_that_do_not_fit_are_refused():
    for encoder, side in (("swinv2_tiny", 32), ("hiera_tiny", 64)):
        with pytest.raises(ConfigError, match="halves of the patches"):
            build(encoder=encoder, size=(side, side))
    for settings in (
        {"decoder_width": 30},
        {"decoder_depth": 0},
        {"negative_pool": 1},
        {"temperature": 0.0},
        {"contrast_weight": -1.0},
    ):
        with pytest.raises(ConfigError, match=next(iter(settings))):
            SplitMaskConfig(**settings)
