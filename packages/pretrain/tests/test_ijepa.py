"""Latent targets against the formulas, the teacher's way, and padding that leaves no trace."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unveil_backbones import create
from unveil_backbones.errors import TokenCountError
from unveil_backbones.position import sin_cos_position
from unveil_masking import Grid
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.losses import present_mse, smooth_l1
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.ijepa import IJEPAConfig
from unveil_pretrain.optim import build_optimizer

SMALL = IJEPAConfig(predictor_width=32, predictor_depth=2, predictor_heads=2)
SIDE, GRID = 64, (8, 8)


def inputs(num=4):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(num, 3, SIDE, SIDE, generator=generator)
    return Inputs(images, torch.arange(num) + 7, torch.zeros(num, dtype=torch.int64), None)


def build(config=SMALL, encoder="vit_tiny", side=SIDE, drop_path=0.0):
    torch.manual_seed(0)
    made = create(encoder, image_size=(side, side), drop_path=drop_path)
    context = BuildContext(encoder=made, image_size=(side, side), captions=lambda _: [], tokenizer_json=None)
    return config.build(context)


@pytest.fixture(scope="module")
def ijepa():
    objective = build().eval()
    with torch.no_grad():  # the teacher is another than the encoder, as it is after a few steps
        for parameter in objective.teacher.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return objective


def expected_loss(objective, image, sample_id, distance, seed=3):
    """One sample by the formulas: no padding, no batch, one target block after the other."""
    ids = torch.tensor([sample_id])
    grid = Grid(*GRID)
    context = torch.from_numpy(
        np.flatnonzero(~objective.strategy.sample(grid, ids, seed=seed, epoch=0).mask[0].numpy())
    )
    encoder, predictor = objective.encoder, objective.predictor
    latent = encoder.encode(encoder.embed(image[None])[:, context], GRID)[:, 1:]
    whole = objective.teacher.encode(objective.teacher.embed(image[None]), GRID)[0, 1:]
    whole = (whole - whole.mean(1, keepdim=True)) / (whole.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    positions = sin_cos_position(*GRID, predictor.width, base_rows=8, base_cols=8)
    losses = []
    for block in objective.strategy.targets(grid, ids, seed=seed, epoch=0)[0]:
        places = torch.from_numpy(np.flatnonzero(block.numpy()))
        tokens = [predictor.project(latent[0]) + positions[context], predictor.mask_token + positions[places]]
        tokens = torch.cat(tokens)[None]
        for layer in predictor.blocks:
            tokens = layer(tokens)
        error = predictor.predict(predictor.norm(tokens))[0, len(context) :] - whole[places]
        size = error.abs()
        losses.append((torch.where(size < 1, size**2 / 2, size - 0.5) if distance == "smooth_l1" else size**2).mean())
    return sum(losses) / len(losses)


@pytest.mark.parametrize("distance", ["smooth_l1", "l2"])
def test_loss_of_each_sample_by_the_formulas(ijepa, distance):
    batch = inputs()
    ijepa.distance = distance
    with torch.no_grad():
        found = ijepa(batch, seed=3)
        expected = [expected_loss(ijepa, batch.images[row], 7 + row, distance) for row in range(4)]
    ijepa.distance = "smooth_l1"
    torch.testing.assert_close(found.per_sample, torch.stack(expected), rtol=1e-5, atol=1e-6)
    kept = ijepa.strategy.sample(Grid(*GRID), batch.sample_ids, seed=3, epoch=0).counts
    assert len(set(kept.tolist())) > 1  # padding was at work
    assert found.num_tokens == int(kept.sum())


def test_distances_by_hand_count_present_tokens_only():
    prediction = torch.tensor([[[0.0, 2.0], [9.0, 9.0]], [[0.5, 0.0], [1.0, 3.0]]])
    target = torch.zeros(2, 2, 2)
    present = torch.tensor([[True, False], [True, True]])
    # Smooth: 0 and 1.5 | 0.125, 0, 0.5, 2.5. Squares: 0 and 4 | 0.25, 0, 1, 9.
    assert smooth_l1(prediction, target, present).tolist() == [0.75, pytest.approx((0.0625 + 1.5) / 2)]
    assert present_mse(prediction, target, present).tolist() == [2.0, pytest.approx((0.125 + 5.0) / 2)]


def test_a_sample_is_alone_whatever_pads_it(ijepa):
    batch = inputs()
    order = torch.tensor([2, 0, 3, 1])
    shuffled = replace(
        batch, images=batch.images[order], sample_ids=batch.sample_ids[order], epochs=batch.epochs[order]
    )
    with torch.no_grad():
        losses = ijepa(batch, seed=3).per_sample
        torch.testing.assert_close(ijepa(shuffled, seed=3).per_sample, losses[order], rtol=1e-5, atol=1e-6)
        for row in range(4):
            one = replace(
                batch, images=batch.images[row, None], sample_ids=batch.sample_ids[row, None], epochs=batch.epochs[:1]
            )
            torch.testing.assert_close(ijepa(one, seed=3).per_sample, losses[row, None], rtol=1e-5, atol=1e-6)


def test_only_context_pixels_reach_the_prediction(ijepa):
    batch = inputs()
    mask = ijepa.strategy.sample(Grid(*GRID), batch.sample_ids, seed=3, epoch=0).mask
    hidden = mask.view(-1, 1, *GRID).repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = replace(batch, images=torch.where(hidden, torch.randn_like(batch.images), batch.images))
    seen = []
    handle = ijepa.predictor.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        ijepa(batch, seed=3)
        ijepa(other, seed=3)
    handle.remove()
    asked = ijepa.strategy.targets(Grid(*GRID), batch.sample_ids, seed=3, epoch=0).sum(-1)
    for row in range(4):
        count = int(asked[row, 0])
        torch.testing.assert_close(seen[0][row, :, :count], seen[1][row, :, :count])


def test_the_teacher_follows_by_its_momentum_and_nothing_else():
    objective = build(replace(SMALL, momentum=0.9)).train()
    before = [parameter.clone() for parameter in objective.teacher.parameters()]
    with torch.no_grad():
        for parameter in objective.encoder.parameters():
            parameter.add_(1.0)
    for progress, momentum in ((0.0, 0.9), (0.5, 0.95), (1.0, 1.0)):
        expected = [
            momentum * old + (1 - momentum) * new
            for old, new in zip(before, objective.encoder.parameters(), strict=True)
        ]
        objective.after_update(progress)
        for found, wanted in zip(objective.teacher.parameters(), expected, strict=True):
            torch.testing.assert_close(found, wanted)
        before = [parameter.clone() for parameter in objective.teacher.parameters()]


def test_the_teacher_has_no_gradients_no_optimiser_and_no_drop_path():
    objective = build(drop_path=0.5).train()
    assert not objective.teacher.training
    assert objective.encoder.training
    objective(inputs(), seed=3).per_sample.mean().backward()
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
    learning = {name for name, parameter in objective.named_parameters() if parameter.grad is not None}
    assert learning == {name for name, _ in objective.named_parameters() if not name.startswith("teacher.")}
    optimizer = build_optimizer(
        objective, weight_decay=0.1, betas=(0.9, 0.99), without_decay=objective.no_weight_decay()
    )
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert not held & {id(parameter) for parameter in objective.teacher.parameters()}
    heads = objective.heads()
    assert {f"objective.teacher.{name}" for name in objective.encoder.state_dict()} < heads.keys()
    with torch.no_grad():
        targets = [objective._targets(inputs().images, GRID, torch.zeros(4, 1, 1, dtype=torch.int64)) for _ in range(2)]
    assert torch.equal(*targets)


def test_the_card_says_whose_targets_they_are(ijepa):
    card = ijepa.card()
    assert card.target_normalisation == "ema_teacher layer_norm"
    assert card.reduction == "target_patches smooth_l1"
    masks = ijepa.strategy.sample(Grid(*GRID), np.arange(1024, dtype=np.int64), seed=0).mask
    assert card.realised_ratio == pytest.approx(masks.mean(), abs=1e-4)
    assert math.isfinite(card.realised_ratio)


@pytest.mark.parametrize(("encoder", "side"), [("swinv2_tiny", 32), ("hiera_tiny", 64), ("timm:test_vit", 64)])
def test_encoders_without_padding_are_refused(encoder, side):
    with pytest.raises(ConfigError, match="unequal size"):
        build(encoder=encoder, side=side)
    made = create(encoder, image_size=(side, side))
    with pytest.raises(TokenCountError, match="equally many tokens"):
        made.encode_padded(torch.zeros(1, 4, made.embed_width), (2, 2), torch.ones(1, 4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"momentum": 1.5}, "momentum"),
        ({"predictor_depth": 0}, "predictor_depth"),
        ({"predictor_width": 30}, "predictor_width"),
    ],
)
def test_settings_out_of_range_are_refused(settings, what):
    with pytest.raises(ConfigError, match=what):
        IJEPAConfig(**settings)


@given(st.lists(st.integers(1, 16), min_size=2, max_size=4), st.integers(0, 100))
def test_padded_tokens_leave_no_trace_in_a_vit(counts, seed):
    torch.manual_seed(seed)
    encoder = create("vit_tiny", image_size=(32, 32)).eval()
    tokens = torch.randn(len(counts), max(counts), 128)
    present = torch.arange(max(counts))[None] < torch.tensor(counts)[:, None]
    with torch.no_grad():
        padded = encoder.encode_padded(tokens, (4, 4), present)
        for row, count in enumerate(counts):
            alone = encoder.encode(tokens[row : row + 1, :count], (4, 4))
            torch.testing.assert_close(padded[row : row + 1, : 1 + count], alone, rtol=1e-4, atol=1e-5)
