"""Four maps at strides 4, 8, 16 and 32 from every encoder."""

import pytest
import torch
from timm.layers import LayerNorm2d
from unveil_backbones import FeaturePyramid, VitConfig, VitEncoder, create
from unveil_backbones.errors import ConfigError, ImageSizeError
from unveil_backbones.pyramid import _ChannelNorm


def vit(patch_size: int) -> VitEncoder:
    return VitEncoder(VitConfig(image_size=(64, 64), patch_size=patch_size, width=16, depth=1, num_heads=2))


@pytest.mark.parametrize(
    ("encoder", "channels"),
    [
        (lambda: create("swinv2_tiny"), (32, 64, 128, 256)),
        (lambda: create("vit_tiny"), (64, 128, 128, 128)),
        (lambda: vit(4), (16, 16, 16, 16)),
        (lambda: vit(16), (4, 8, 16, 16)),
        (lambda: vit(32), (2, 4, 8, 16)),
    ],
)
def test_maps_have_the_promised_shapes_and_train_the_encoder(encoder, channels):
    pyramid = FeaturePyramid(encoder())
    assert pyramid.channels == channels
    assert pyramid.strides == (4, 8, 16, 32)
    maps = pyramid(torch.randn(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (2, width, 64 // stride, 96 // stride) for width, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]
    sum(m.square().sum() for m in maps).backward()
    untrained = {name for name, parameter in pyramid.named_parameters() if parameter.grad is None}
    # A hierarchical encoder's final norm belongs to its encoding, not to its maps.
    assert untrained <= {"encoder.norm.weight", "encoder.norm.bias"}


def test_hierarchical_maps_are_the_normalised_native_ones():
    pyramid = FeaturePyramid(create("swinv2_tiny")).eval()
    images = torch.randn(1, 3, 64, 64)
    for ours, native in zip(pyramid(images), pyramid.encoder.features(images), strict=True):
        expected = torch.nn.functional.layer_norm(native.permute(0, 2, 3, 1), native.shape[1:2]).permute(0, 3, 1, 2)
        torch.testing.assert_close(ours, expected)


def test_plain_maps_are_resampled_from_one():
    pyramid = FeaturePyramid(create("vit_tiny")).eval()
    images = torch.randn(1, 3, 64, 64)
    (native,) = pyramid.encoder.features(images)
    maps = pyramid(images)
    assert torch.equal(maps[1], native)
    assert torch.equal(maps[2], torch.nn.functional.max_pool2d(native, 2))
    assert torch.equal(maps[3], torch.nn.functional.max_pool2d(native, 4))


def test_channel_norm_equals_timm():
    ours, theirs = _ChannelNorm(8, eps=1e-6), LayerNorm2d(8)
    theirs.load_state_dict(ours.state_dict())
    maps = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(ours(maps), theirs(maps))


def test_sizes_have_to_fit_the_coarsest_map():
    with pytest.raises(ImageSizeError, match=r"FeaturePyramid\(vit_tiny\) got an image of 72 x 64 .* multiples of 32"):
        FeaturePyramid(create("vit_tiny"))(torch.zeros(1, 3, 72, 64))


def test_patches_that_fit_no_stride_are_refused():
    encoder = VitEncoder(VitConfig(image_size=(60, 60), patch_size=12, width=16, depth=1, num_heads=2))
    with pytest.raises(ConfigError, match=r"maps of strides \(12,\); a pyramid needs \(4, 8, 16, 32\)"):
        FeaturePyramid(encoder)


def test_a_plain_encoder_of_stride_16_gets_vitdets_layers():
    """arXiv 2203.16527, section 3: deconvolutions of stride 2 upwards, norm and GELU between two; pooling downwards.

    The 1 x 1 and 3 x 3 convolutions that bring all maps to one width belong to the detector's neck.
    """
    pyramid = FeaturePyramid(vit(16)).eval()
    images, functional = torch.randn(1, 3, 64, 96), torch.nn.functional
    (native,) = pyramid.encoder.features(images)
    state = pyramid.levels.state_dict()
    up = functional.conv_transpose2d(native, state["0.0.weight"], state["0.0.bias"], stride=2)
    normed = functional.layer_norm(up.permute(0, 2, 3, 1), (8,), state["0.1.weight"], state["0.1.bias"])
    up = functional.gelu(normed.permute(0, 3, 1, 2))
    expected = (
        functional.conv_transpose2d(up, state["0.3.weight"], state["0.3.bias"], stride=2),
        functional.conv_transpose2d(native, state["1.0.weight"], state["1.0.bias"], stride=2),
        native,
        functional.max_pool2d(native, 2),
    )
    assert {name.partition(".")[0] for name in state} == {"0", "1"}
    for ours, wanted in zip(pyramid(images), expected, strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=0)
