"""Encoders by name, from specs, and with a changed configuration; every wrong request is answered in full."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2
from unveil_backbones import EncoderSpec, SwinConfig, SwinEncoder, VitConfig, VitEncoder, build, create, names, rebuild
from unveil_backbones.errors import ConfigError, ImageSizeError, ManifestError, UnknownModelError

TINY = ("vit_tiny", "swinv2_tiny", "hiera_tiny", "timm:test_vit")


def test_names_are_those_promised():
    promised = {f"swinv2_{size}" for size in ("tiny", "s", "b", "l", "h", "g")}
    promised |= {f"vit_{size}" for size in ("tiny", "micro", "mini", "ti16", "s16", "b16", "l16", "h14", "g14")}
    promised |= {f"hiera_{size}" for size in ("tiny", "t", "s", "b", "bp", "l", "h")}
    promised |= {f"vit_video_{size}" for size in ("tiny", "s16", "b16", "l16", "h16")}
    assert set(names()) == promised


@pytest.mark.parametrize("name", names())
def test_create_makes_every_encoder_under_its_name(name):
    with torch.device("meta"):
        assert create(name).spec.name == name


@pytest.mark.parametrize("name", TINY)
def test_what_an_encoder_says_of_itself_is_what_it_does(name):
    encoder = create(name).eval()
    for height, width in [(64, 64), (64, 128), (96, 96), (128, 128), (192, 64)]:
        images = torch.randn(1, 3, height, width)
        rows, cols = encoder.grid(height, width)
        tokens = encoder.embed(images)
        assert tokens.shape == (1, rows * cols, encoder.embed_width)
        encoded = encoder.encode(tokens, (rows, cols))
        num = encoder.num_prefix_tokens + (height // encoder.stride) * (width // encoder.stride)
        assert encoded.shape == (1, num, encoder.width)
        assert encoder(images).shape == (1, encoder.width)
        shapes = [tuple(feature.shape[1:]) for feature in encoder.features(images)]
        assert shapes == [
            (channels, height // stride, width // stride)
            for channels, stride in zip(encoder.feature_channels, encoder.feature_strides, strict=True)
        ]


@pytest.mark.parametrize("name", TINY)
def test_equal_seeds_make_equal_weights(name):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(create(name).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", TINY)
def test_a_spec_rebuilds_the_same_architecture(name):
    encoder = create(name, image_size=(96, 64), drop_path=0.1)
    again = build(encoder.spec)
    assert (again.spec, again.config) == (encoder.spec, encoder.config)
    again.load_state_dict(encoder.state_dict())
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(again.eval()(images), encoder.eval()(images))


def test_image_size_and_drop_path_of_create():
    swin = create("swinv2_tiny", image_size=128, drop_path=0.2)
    assert swin.config.image_size == (128, 128)
    assert swin.config.pretrained_window_sizes == ((4, 4), (4, 4), (4, 4), (4, 4))
    assert swin.layers[3].blocks[1].drop_path1.drop_prob == pytest.approx(0.2)
    vit = create("vit_tiny", image_size=(64, 96), drop_path=0.3)
    assert vit.config.image_size == (64, 96)
    assert [round(getattr(block.drop_path1, "drop_prob", 0.0), 3) for block in vit.blocks] == [0, 0.1, 0.2, 0.3]


def test_families_build_shapes_of_ones_own():
    vit = VitEncoder(VitConfig(image_size=(32, 32), patch_size=4, width=16, depth=1, num_heads=2))
    swin = SwinEncoder(replace(create("swinv2_tiny").config, width=64, num_heads=(2, 4, 8, 16)))
    assert isinstance(build(vit.spec), VitEncoder)
    assert isinstance(build(swin.spec), SwinEncoder)
    assert build(swin.spec).embed_width == 64


@pytest.mark.parametrize("name", TINY)
def test_rebuild_keeps_weights_and_output(name):
    encoder = create(name).eval()
    changed = rebuild(encoder, replace(encoder.config, drop_path=0.5)).eval()
    assert changed.config.drop_path == 0.5
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(changed(images), encoder(images))


def test_rebuild_enlarges_windows_for_fine_tuning():
    encoder = create("swinv2_tiny")
    changed = rebuild(encoder, replace(encoder.config, image_size=(128, 128), window_sizes=(8, 8, 8, 8)))
    assert changed.config.pretrained_window_sizes == encoder.config.pretrained_window_sizes
    twin = SwinTransformerV2(
        img_size=128,
        num_classes=0,
        embed_dim=32,
        depths=(2, 2, 2, 2),
        num_heads=(1, 2, 4, 8),
        window_size=[(8, 8)] * 3 + [(4, 4)],
        pretrained_window_sizes=encoder.config.pretrained_window_sizes,
    ).eval()
    twin.load_state_dict(changed.state_dict())
    images = torch.randn(1, 3, 128, 128)
    expected = twin.forward_features(images).mean(dim=(1, 2))
    torch.testing.assert_close(changed.eval()(images), expected, atol=1e-5, rtol=0)


def test_rebuild_refuses_other_weights():
    encoder = create("vit_tiny")
    with pytest.raises(ConfigError, match="only image size, windows and drop path may change"):
        rebuild(encoder, replace(encoder.config, depth=5))


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(UnknownModelError, match=r"encoder 'resnet50' is unknown; there are vit_tiny, .*choose one"):
        create("resnet50")
    with pytest.raises(
        UnknownModelError,
        match=r"'convnext' is unknown; this version builds .*vit, swinv2, hiera, vit_video, timm:<model>; upgrade",
    ):
        build(EncoderSpec("convnext", {}))


def test_specs_have_all_fields_and_no_other():
    config = create("vit_tiny").spec.config
    with pytest.raises(ManifestError, match=r"encoder.config has no field 'depth'"):
        build(EncoderSpec("vit_tiny", {key: value for key, value in config.items() if key != "depth"}))
    with pytest.raises(ManifestError, match=r"unknown fields \['gate'\]"):
        build(EncoderSpec("vit_tiny", {**config, "gate": True}))
    with pytest.raises(ManifestError, match=r"encoder.config.width is 'wide'; it has to be an integer"):
        build(EncoderSpec("vit_tiny", {**config, "width": "wide"}))
    with pytest.raises(ManifestError, match=r"image_size is \[64\]; it has to be a list of 2 items"):
        build(EncoderSpec("vit_tiny", {**config, "image_size": [64]}))


VIT = VitConfig(image_size=(64, 64), patch_size=8, width=32, depth=2, num_heads=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 5}, "width 32 with 5 heads"),
        ({"width": 30, "num_heads": 3}, "width 30 with 3 heads"),
        ({"drop_path": 1.0}, "drop_path 1.0; it is a probability below 1"),
        ({"drop_path": -0.1}, "drop_path -0.1"),
    ],
)
def test_vit_configurations_that_make_no_encoder(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(VIT, **change)


SWIN = SwinConfig(
    image_size=(64, 64),
    width=32,
    depths=(2, 2, 2, 2),
    num_heads=(1, 2, 4, 8),
    window_sizes=(4, 4, 4, 4),
    pretrained_window_sizes=((4, 4), (4, 4), (4, 4), (2, 2)),
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (2, 2, 2)}, "each has 4 entries, one per stage"),
        ({"num_heads": (1, 2, 4, 9)}, "width 32 with heads"),
        ({"window_sizes": (4, 4, 4, 0)}, "a window has at least one token"),
        ({"pretrained_window_sizes": ((4, 4), (4, 4), (4, 4), (2, 0))}, "a window has at least one token"),
        ({"drop_path": 2.0}, "drop_path 2.0"),
    ],
)
def test_swin_configurations_that_make_no_encoder(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(SWIN, **change)


def test_image_sizes_of_pre_training_have_to_fit():
    with pytest.raises(ImageSizeError, match="multiples of 8; resize or pad to height 64 or 72"):
        create("vit_tiny", image_size=(65, 64))
    with pytest.raises(ImageSizeError, match="multiples of 32"):
        create("swinv2_tiny", image_size=48)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_encoders_are_one_graph_for_the_compiler_at_every_size(name):
    """In a process of its own: the run-time checks of these tests are not made for the compiler."""
    code = f"""
import torch
from unveil_backbones import create
encoder = create({name!r}).eval()
compiled = torch.compile(encoder, backend="eager", fullgraph=True)
for size in [(64, 64), (64, 96), (64, 64)]:
    images = torch.randn(1, 3, *size)
    torch.testing.assert_close(compiled(images), encoder(images))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
