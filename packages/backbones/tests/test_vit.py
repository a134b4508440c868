"""The Vision Transformer equals timm's, and its halves are free of each other's token count and order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from unveil_backbones import VitConfig, VitEncoder, create
from unveil_backbones.errors import ImageSizeError, TokenCountError
from unveil_backbones.position import sin_cos_position

CONFIG = VitConfig(image_size=(32, 48), patch_size=8, width=32, depth=2, num_heads=2)


@pytest.fixture
def encoder() -> VitEncoder:
    return VitEncoder(CONFIG).eval()


def timm_twin(encoder: VitEncoder, image_size: tuple[int, int]) -> VisionTransformer:
    """timm's own model of this size with the same weights; its position table holds the class token's zeros first."""
    config = encoder.config
    twin = VisionTransformer(
        img_size=image_size,
        patch_size=config.patch_size,
        num_classes=0,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
    )
    rows, cols = encoder.grid(*image_size)
    base_rows, base_cols = encoder.grid(*config.image_size)
    position = sin_cos_position(rows, cols, config.width, base_rows=base_rows, base_cols=base_cols)
    table = torch.cat([torch.zeros(1, config.width), position])[None]
    twin.load_state_dict({**encoder.state_dict(), "pos_embed": table})
    return twin.eval()


@pytest.mark.parametrize("size", [(32, 48), (64, 64), (40, 24)])
def test_forward_and_backward_equal_timm(encoder, size):
    twin = timm_twin(encoder, size)
    images = torch.randn(2, 3, *size)
    ours = encoder.encode(encoder.embed(images), encoder.grid(*size))
    theirs = twin.forward_features(images)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    gradients = {name: parameter.grad for name, parameter in twin.named_parameters() if name != "pos_embed"}
    assert gradients.keys() == dict(encoder.named_parameters()).keys()
    for name, parameter in encoder.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4, msg=name)


def test_state_dict_has_timm_names_and_no_computed_tensor(encoder):
    assert set(encoder.state_dict()) == set(timm_twin(encoder, (32, 48)).state_dict()) - {"pos_embed"}


def test_encoding_a_subset_equals_encoding_those_tokens_alone(encoder):
    """What a masked objective relies on: hidden tokens leave no trace."""
    images = torch.randn(2, 3, 32, 48)
    tokens = encoder.embed(images)
    keep = torch.tensor([[0, 5, 6, 20], [3, 4, 9, 23]])
    subset = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))
    expected = encoder.encode(subset, (4, 6))
    changed = torch.randn_like(tokens).scatter(1, keep[..., None].expand(-1, -1, tokens.shape[-1]), subset)
    again = changed.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))
    assert torch.equal(encoder.encode(again, (4, 6)), expected)
    one_by_one = torch.cat([encoder.encode(subset[i : i + 1], (4, 6)) for i in range(2)])
    torch.testing.assert_close(one_by_one, expected, atol=1e-5, rtol=0)


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), num=st.integers(1, 24))
def test_permuting_tokens_permutes_the_output(seed, num):
    encoder = VitEncoder(CONFIG).eval()
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(1, num, CONFIG.width, generator=generator)
    order = torch.randperm(num, generator=generator)
    with torch.inference_mode():
        plain, permuted = encoder.encode(tokens, (4, 6)), encoder.encode(tokens[:, order], (4, 6))
    torch.testing.assert_close(permuted[:, 1:], plain[:, 1:][:, order], atol=1e-5, rtol=0)
    torch.testing.assert_close(permuted[:, 0], plain[:, 0], atol=1e-5, rtol=0)


def test_embed_adds_positions_to_patches_in_raster_order(encoder):
    images = torch.randn(1, 3, 32, 48)
    patch = encoder.patch_embed.proj(images[:, :, 8:16, 40:48]).flatten()  # row 1, column 5 of 6: token 11
    expected = patch + encoder.base_position[11]
    torch.testing.assert_close(encoder.embed(images)[0, 11], expected, atol=1e-5, rtol=0)


def test_sizes_do_not_leave_traces(encoder):
    images = torch.randn(1, 3, 32, 48)
    first = encoder(images)
    encoder(torch.randn(1, 3, 64, 64))
    assert torch.equal(encoder(images), first)


def test_features_and_pooled_vector_leave_the_class_token_out(encoder):
    images = torch.randn(2, 3, 32, 48)
    tokens = encoder.encode(encoder.embed(images), (4, 6))
    (features,) = encoder.features(images)
    assert features.shape == (2, *encoder.feature_channels, 4, 6)
    assert encoder.feature_strides == (8,)
    assert torch.equal(features[:, :, 1, 5], tokens[:, 1 + 11])
    assert torch.equal(encoder(images), tokens[:, 1:].mean(dim=1))


def test_layer_groups_hold_every_parameter_once_from_input_to_output(encoder):
    groups = encoder.layer_groups()
    assert sorted(name for group in groups for name in group) == sorted(name for name, _ in encoder.named_parameters())
    assert len(groups) == 1 + 2 + 1
    assert set(groups[0]) == {"cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert all(name.startswith("blocks.1.") for name in groups[2])
    assert groups[-1] == ["norm.weight", "norm.bias"]


def test_weight_decay_spares_biases_norms_and_the_class_token(encoder):
    spared = encoder.no_weight_decay()
    assert {"cls_token", "norm.weight", "blocks.0.attn.qkv.bias", "patch_embed.proj.bias"} <= spared
    decayed = {name for name, _ in encoder.named_parameters()} - spared
    assert decayed == {"patch_embed.proj.weight"} | {
        f"blocks.{block}.{layer}.weight"
        for block in range(2)
        for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }


def test_initialisation_is_that_of_mae():
    encoder = create("vit_s16")
    qkv, patch = encoder.state_dict()["blocks.3.attn.qkv.weight"], encoder.state_dict()["patch_embed.proj.weight"]
    # Xavier-uniform: the bound is sqrt(6 / (fan in + fan out)), the deviation bound / sqrt(3).
    assert qkv.abs().max() <= (6 / (384 + 3 * 384)) ** 0.5
    assert qkv.std() == pytest.approx((2 / (384 + 3 * 384)) ** 0.5, rel=0.02)
    assert patch.std() == pytest.approx((2 / (3 * 16 * 16 + 384)) ** 0.5, rel=0.02)
    assert encoder.state_dict()["cls_token"].std() == pytest.approx(0.02, rel=0.15)
    assert all(
        not value.any() for name, value in encoder.state_dict().items() if name.endswith(".bias") and "blocks" in name
    )


def test_token_counts_that_do_not_fit_are_refused(encoder):
    with pytest.raises(TokenCountError, match=r"25 tokens for a grid of 4 x 6; it takes at most 24"):
        encoder.encode(torch.zeros(1, 25, 32), (4, 6))


def test_image_sizes_that_do_not_fit_are_refused_with_the_nearest_that_do(encoder):
    message = r"vit got an image of 30 x 48 pixels; .* multiples of 8; .* height 24 or 32 and width 48"
    with pytest.raises(ImageSizeError, match=message):
        encoder.embed(torch.zeros(1, 3, 30, 48))
    with pytest.raises(ImageSizeError, match="height 8 and width 8"):
        encoder.grid(5, 0)


def test_half_precision_and_autocast_run(encoder):
    images = torch.randn(1, 3, 32, 48)
    reference = encoder(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = encoder(images)
    torch.testing.assert_close(mixed.float(), reference, atol=0.1, rtol=0)
    whole = encoder.bfloat16()(images.bfloat16())
    assert whole.dtype == torch.bfloat16
    torch.testing.assert_close(whole.float(), reference, atol=0.1, rtol=0)
