"""The image-text pair: FLIP's pooling, unit vectors, a clamped temperature."""

import math
from dataclasses import replace

import pytest
import torch
from unveil_backbones import ImageTextPair, VitEncoder, create, create_text


@pytest.fixture
def pair() -> ImageTextPair:
    return ImageTextPair(create("vit_tiny"), create_text("text_tiny", 30, 8), 24).eval()


def test_vectors_have_length_one_in_a_common_space(pair):
    images, ids = torch.randn(3, 3, 64, 96), torch.randint(0, 30, (2, 8))
    assert pair.encode_image(images).shape == (3, 24)
    assert pair.encode_text(ids).shape == (2, 24)
    for vectors in (pair.encode_image(images), pair.encode_text(ids)):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))


def test_image_vector_is_the_projected_mean_of_all_tokens_with_the_class_token(pair):
    images = torch.randn(1, 3, 64, 64)
    tokens = pair.encoder.encode(pair.encoder.embed(images), (8, 8))
    projected = pair.image_projection(tokens.mean(dim=1))
    torch.testing.assert_close(pair.encode_image(images), projected / projected.norm())


@pytest.mark.parametrize("pooling", ["cls", "mean_all"])
def test_an_encoder_that_pools_otherwise_is_asked_for_its_own_vector(pair, pooling):
    encoder = VitEncoder(replace(pair.encoder.config, pooling=pooling))
    other = ImageTextPair(encoder, pair.text, 24).eval()
    images = torch.randn(2, 3, 64, 64)
    tokens = encoder.encode(encoder.embed(images), (8, 8))
    wanted = tokens[:, 0] if pooling == "cls" else tokens.mean(dim=1)
    projected = other.image_projection(wanted)
    torch.testing.assert_close(other.encode_image(images), torch.nn.functional.normalize(projected, dim=-1))


def test_blocks_of_both_towers_are_named(pair):
    names = pair.block_names()
    assert len(names) == 4 + 2
    assert {type(pair.get_submodule(name)).__name__ for name in names} == {"VitBlock", "TextBlock"}


def test_a_part_of_the_tokens_is_encoded_without_the_rest(pair):
    tokens = pair.encoder.embed(torch.randn(2, 3, 64, 64))
    half = pair.encode_image_tokens(tokens[:, ::2], (8, 8))
    encoded = pair.encoder.encode(tokens[:, ::2], (8, 8))
    assert encoded.shape[1] == 33
    torch.testing.assert_close(half, torch.nn.functional.normalize(pair.image_projection(encoded.mean(1)), dim=-1))


def test_a_hierarchical_encoder_makes_a_pair_too():
    pair = ImageTextPair(create("swinv2_tiny"), create_text("text_tiny", 30, 8), 24)
    assert pair.encode_image(torch.randn(1, 3, 64, 64)).shape == (1, 24)


@pytest.mark.parametrize(("raw", "clamped"), [(-1.0, 0.0), (2.0, 2.0), (9.0, math.log(100))])
def test_temperature_is_clamped(pair, raw, clamped):
    torch.nn.init.constant_(pair.raw_logit_scale, raw)
    assert pair.logit_scale.item() == pytest.approx(clamped)


def test_temperature_starts_at_the_published_value_and_is_learnt(pair):
    assert pair.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    pair.logit_scale.exp().backward()
    assert pair.raw_logit_scale.grad.item() == pytest.approx(1 / 0.07)


def test_every_parameter_is_trained_by_similarities(pair):
    similarity = (
        pair.logit_scale.exp()
        * pair.encode_image(torch.randn(4, 3, 64, 64))
        @ pair.encode_text(torch.randint(0, 30, (4, 8))).T
    )
    torch.nn.functional.cross_entropy(similarity, torch.arange(4)).backward()
    assert all(parameter.grad is not None for parameter in pair.parameters())


def test_weight_decay_spares_what_the_towers_spare(pair):
    spared = pair.no_weight_decay()
    assert {"raw_logit_scale", "encoder.cls_token", "text.pos_embed", "text.norm.bias"} <= spared
    assert not {"image_projection.weight", "text_projection.weight", "text.token_embed.weight"} & spared
    assert spared <= {name for name, _ in pair.named_parameters()}


def test_heads_are_everything_but_the_encoder(pair):
    heads = pair.heads_state()
    assert {name.split(".")[1] for name in heads} == {"text", "image_projection", "text_projection", "raw_logit_scale"}
    assert len(heads) + len(pair.encoder.state_dict()) == len(pair.state_dict())
