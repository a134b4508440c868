"""SwinV2 at any size equals a timm model built for that size, and no size leaves a trace in the next."""

import copy
from dataclasses import replace

import pytest
import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2
from unveil_backbones import SwinConfig, SwinEncoder, create, rebuild
from unveil_backbones.errors import ImageSizeError, TokenCountError
from unveil_backbones.swin import clamped_windows
from unveil_backbones.swin_bias import position_bias

SIZES = [(64, 64), (64, 128), (96, 96), (128, 128), (32, 32), (160, 96)]


def randomised(encoder: SwinEncoder) -> SwinEncoder:
    """Weights away from the initial ones: the last norms of all blocks begin at zero, which would hide everything."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return encoder.eval()


@pytest.fixture
def encoder() -> SwinEncoder:
    config = SwinConfig(
        image_size=(64, 64),
        width=8,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8),
        window_sizes=(4, 4, 4, 4),
        pretrained_window_sizes=clamped_windows((64, 64), 4, (4, 4, 4, 4)),
    )
    return randomised(SwinEncoder(config))


def timm_twin(encoder: SwinEncoder, image_size: tuple[int, int]) -> SwinTransformerV2:
    config = encoder.config
    twin = SwinTransformerV2(
        img_size=image_size,
        num_classes=0,
        embed_dim=config.width,
        depths=config.depths,
        num_heads=config.num_heads,
        window_size=config.window_sizes[0],
        pretrained_window_sizes=config.pretrained_window_sizes,
        drop_path_rate=0.0,
    )
    twin.load_state_dict(encoder.state_dict())
    return twin.eval()


@pytest.mark.parametrize("size", SIZES)
def test_every_size_equals_a_timm_model_built_for_it(encoder, size):
    twin = timm_twin(encoder, size)
    images = torch.randn(2, 3, *size)
    ours = encoder.encode(encoder.embed(images), encoder.grid(*size))
    theirs = twin.forward_features(images).flatten(1, 2)
    assert ours.shape == (2, size[0] * size[1] // 32**2, 64)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder(images), twin(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (96, 128)])
def test_gradients_equal_timm(encoder, size):
    twin = timm_twin(encoder, size)
    images = torch.randn(2, 3, *size)
    encoder(images).square().sum().backward()
    twin(images).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in twin.named_parameters()}
    for name, parameter in encoder.named_parameters():
        scale = gradients[name].abs().max().clamp(min=1.0)
        torch.testing.assert_close(parameter.grad / scale, gradients[name] / scale, atol=1e-5, rtol=0, msg=name)


def test_sizes_do_not_leave_traces(encoder):
    images = torch.randn(1, 3, 64, 64)
    first = encoder(images)
    for size in SIZES[1:]:
        encoder(torch.randn(1, 3, *size))
    assert torch.equal(encoder(images), first)


def test_state_dict_has_timm_names_and_is_the_same_at_every_size(encoder):
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder(torch.randn(1, 3, 96, 128))
    after = encoder.state_dict()
    assert set(before) == set(timm_twin(encoder, (64, 64)).state_dict())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_size_set_before_moving_or_copying_stays_right(encoder):
    images = torch.randn(1, 3, 64, 128)
    reference = encoder(images)
    copied = copy.deepcopy(encoder)
    encoder(torch.randn(1, 3, 96, 96))
    torch.testing.assert_close(copied(images), reference)
    torch.testing.assert_close(copied.double()(images.double()).float(), reference, atol=1e-4, rtol=0)


def test_windows_are_clamped_as_in_the_paper():
    assert clamped_windows((192, 192), 4, (12, 12, 12, 12)) == ((12, 12), (12, 12), (12, 12), (6, 6))
    assert clamped_windows((64, 128), 4, (4, 4, 4, 4)) == ((4, 4), (4, 4), (4, 4), (2, 4))


def test_one_window_needs_neither_shift_nor_another_order():
    encoder = create("swinv2_s", image_size=192)
    plans = encoder._plan((48, 48), torch.device("cpu"))
    assert [plan.blocks[1].num_windows for plan in plans] == [16, 4, 1, 1]
    assert [plan.blocks[1].regions is not None for plan in plans] == [True, True, False, False]
    assert all(block.before is block.into is None for plan in plans[2:] for block in plan.blocks)
    assert [len(plan.blocks[0].geometry.coordinates) for plan in plans] == [23**2, 23**2, 23**2, 11**2]


def bias_of_neighbours(encoder: SwinEncoder, grid: tuple[int, int]) -> torch.Tensor:
    """Position bias of the last stage for a query one row below its key."""
    plan = encoder._plan(grid, torch.device("cpu"))[-1]
    attention = encoder.layers[3].blocks[0].attn
    bias = position_bias(attention.cpb_mlp, plan.blocks[0].geometry, attention.num_heads)
    return bias[0, plan.grid[1], 0]


def test_the_position_bias_of_a_distance_is_the_same_at_every_size(encoder):
    reference = bias_of_neighbours(encoder, (16, 16))
    for grid in [(24, 24), (24, 32), (32, 16)]:
        torch.testing.assert_close(bias_of_neighbours(encoder, grid), reference)


def test_without_the_windows_of_pre_training_that_bias_would_move(encoder):
    """The test above can fail: with the window of the moment for the scale, another window reads another bias."""
    reference = bias_of_neighbours(encoder, (16, 16))
    other = rebuild(encoder, replace(encoder.config, pretrained_window_sizes=((4, 4), (4, 4), (4, 4), (3, 3))))
    assert (bias_of_neighbours(other, (24, 24)) - reference).abs().max() > 0.01


@pytest.mark.parametrize(("name", "millions"), [("swinv2_tiny", 2.3), ("swinv2_s", 49.0), ("swinv2_b", 86.9)])
def test_parameter_counts_are_those_published(name, millions):
    assert round(create(name).num_parameters / 1e6, 1) == millions


@pytest.mark.parametrize("size", SIZES)
def test_features_are_the_stages_before_merging(encoder, size):
    images = torch.randn(1, 3, *size)
    features = encoder.features(images)
    expected = timm_twin(encoder, size).forward_intermediates(images, intermediates_only=True)
    for ours, theirs, channels, stride in zip(
        features, expected, encoder.feature_channels, encoder.feature_strides, strict=True
    ):
        assert ours.shape == (1, channels, size[0] // stride, size[1] // stride)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_last_feature_map_is_the_encoding_before_its_norm(encoder):
    images = torch.randn(1, 3, 64, 96)
    tokens = encoder.encode(encoder.embed(images), encoder.grid(64, 96))
    last = encoder.features(images)[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder.norm(last), tokens)


def test_embed_gives_patches_in_raster_order(encoder):
    images = torch.randn(1, 3, 64, 128)
    patch = encoder.patch_embed.proj(images[:, :, 4:8, 12:16]).flatten()  # row 1, column 3 of 32: token 35
    torch.testing.assert_close(encoder.embed(images)[0, 35], encoder.patch_embed.norm(patch), atol=1e-5, rtol=0)


def test_images_of_a_batch_do_not_mix(encoder):
    images = torch.randn(2, 3, 64, 64)
    changed = torch.cat([images[:1], torch.randn(1, 3, 64, 64)])
    torch.testing.assert_close(encoder(images)[0], encoder(changed)[0])


def test_layer_groups_keep_merging_with_the_block_before_it(encoder):
    groups = encoder.layer_groups()
    assert sorted(name for group in groups for name in group) == sorted(name for name, _ in encoder.named_parameters())
    assert len(groups) == 1 + 8 + 1
    assert all(name.startswith("patch_embed.") for name in groups[0])
    assert {name.split(".")[0] + "." + name.split(".")[1] + "." + name.split(".")[2] for name in groups[2]} == {
        "layers.0.blocks",
        "layers.1.downsample",
    }
    assert all(name.startswith("layers.3.blocks.1.") for name in groups[8])
    assert groups[-1] == ["norm.weight", "norm.bias"]


def test_weight_decay_spares_what_simmim_spares(encoder):
    spared = encoder.no_weight_decay()
    assert {"layers.0.blocks.0.attn.logit_scale", "layers.3.blocks.1.attn.cpb_mlp.0.weight"} <= spared
    assert {"layers.2.blocks.0.attn.q_bias", "layers.1.downsample.norm.weight", "patch_embed.proj.bias"} <= spared
    assert not {"layers.1.downsample.reduction.weight", "layers.0.blocks.0.mlp.fc1.weight"} & spared


def test_hidden_tokens_may_be_replaced_but_not_removed(encoder):
    tokens = encoder.embed(torch.randn(1, 3, 64, 64))
    tokens[:, 10:20] = 0
    assert encoder.encode(tokens, (16, 16)).shape == (1, 4, 64)
    with pytest.raises(TokenCountError, match=r"100 tokens for a grid of 16 x 16; it takes exactly 256"):
        encoder.encode(tokens[:, :100], (16, 16))


def test_image_sizes_that_do_not_fit_are_refused_with_the_nearest_that_do(encoder):
    message = r"swinv2 got an image of 65 x 20 pixels; .* multiples of 32; .* height 64 or 96 and width 32"
    with pytest.raises(ImageSizeError, match=message):
        encoder.embed(torch.zeros(1, 3, 65, 20))
    with pytest.raises(ImageSizeError, match="40 x 40 pixels"):
        encoder.encode(torch.zeros(1, 100, 8), (10, 10))


def test_autocast_runs_at_two_sizes(encoder):
    for size in [(64, 64), (96, 128)]:
        images = torch.randn(1, 3, *size)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = encoder(images)
        torch.testing.assert_close(mixed.float(), encoder(images), atol=0.25, rtol=0)
