"""``create`` with typed settings: what they change, and the answer to every wrong one."""

from dataclasses import fields
from typing import get_type_hints

import pytest
import torch
from unveil_backbones import (
    HieraConfig,
    ImageTextPair,
    SwinConfig,
    TimmConfig,
    VideoVitConfig,
    VitConfig,
    create,
)
from unveil_backbones.errors import ConfigError, ImageSizeError
from unveil_backbones.overrides import Overrides

FAMILIES = (VitConfig, SwinConfig, HieraConfig, TimmConfig, VideoVitConfig)


def test_the_typed_settings_are_the_fields_of_all_families():
    known = {field.name for config in FAMILIES for field in fields(config)}
    assert set(get_type_hints(Overrides)) == (known - {"model"}) | {"vocab_size"}


def test_settings_of_a_vit():
    encoder = create(
        "vit_tiny",
        image_size=(32, 64),
        patch_size=16,
        depth=2,
        position="learned",
        class_position=True,
        pooling="cls",
        num_registers=2,
        layer_scale=1e-5,
        mlp_ratio=2,
    )
    config = encoder.config
    assert (config.image_size, config.patch_size, config.depth, config.mlp_ratio) == ((32, 64), 16, 2, 2)
    assert encoder.num_prefix_tokens == 3
    assert encoder.pos_embed.shape == (1, 9, 128)
    assert encoder(torch.randn(1, 3, 32, 64)).shape == (1, 128)


def test_settings_of_a_swin_move_the_windows_of_pre_training_along():
    config = create("swinv2_tiny", image_size=128, window_sizes=(8, 8, 8, 8)).config
    assert config.pretrained_window_sizes == ((8, 8), (8, 8), (8, 8), (4, 4))
    given = create("swinv2_tiny", window_sizes=(8, 8, 8, 4), pretrained_window_sizes=((4, 4),) * 3 + ((2, 2),)).config
    assert given.pretrained_window_sizes == ((4, 4), (4, 4), (4, 4), (2, 2))
    assert create("swinv2_tiny", drop_path=0.1).config.pretrained_window_sizes == ((4, 4), (4, 4), (4, 4), (2, 2))


def test_settings_of_a_hiera_and_of_pairs():
    assert create("hiera_tiny", position="windowed", global_grid=(4, 6)).pos_embed.shape == (1, 32, 4, 6)
    with torch.device("meta"):
        pair = create("clip_b32", vocab_size=500, image_size=64, activation="quick_gelu")
    assert isinstance(pair, ImageTextPair)
    assert pair.text.config.vocab_size == 500


def test_none_is_the_presets_size_and_drop_path_and_a_value_elsewhere():
    assert create("vit_tiny", image_size=None, drop_path=None).config == create("vit_tiny").config
    assert create("vit_tiny", layer_scale=None).config.layer_scale is None
    with pytest.raises(ConfigError, match="width is None; it has to be int"):
        create("vit_tiny", width=None)


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        (
            "vit_tiny",
            {"window_sizes": (4, 4, 4, 4)},
            r"vit_tiny has no settings \['window_sizes'\]; it has image_size, .*",
        ),
        (
            "swinv2_tiny",
            {"depht": 3},
            r"swinv2_tiny has no settings \['depht'\]; it has image_size, .*leave the others",
        ),
        (
            "hiera_tiny",
            {"pooling": "cls"},
            r"hiera_tiny has no settings \['pooling'\]; it has image_size, width, depths",
        ),
        (
            "timm:test_vit",
            {"model": "test_vit2"},
            r"has no settings \['model'\]; it has image_size, patch_size, pooling, drop_path",
        ),
        ("flip_b16", {"width": 3}, r"flip_b16 has no settings \['width'\]; it has image_size, drop_path, vocab_size"),
        ("vit_tiny", {"width": "wide"}, "width is 'wide'; it has to be int"),
        ("vit_tiny", {"width": True}, "width is True; it has to be int"),
        ("vit_tiny", {"mlp_ratio": None}, "mlp_ratio is None; it has to be float"),
        ("vit_tiny", {"pooling": "max"}, "pooling is 'max'; it has to be one of 'mean', 'mean_all', 'cls'"),
        ("vit_tiny", {"image_size": (64, 64, 64)}, r"image_size is \(64, 64, 64\); it has to be tuple\[int, int\]"),
        ("vit_tiny", {"image_size": (64, 64.0)}, "image_size"),
        ("swinv2_tiny", {"depths": [2, 2, 2, 2]}, r"depths is \[2, 2, 2, 2\]; it has to be tuple\[int, \.\.\.\]"),
        ("swinv2_tiny", {"depths": (2, 2, 2)}, "each has 4 entries"),
        ("vit_tiny", {"drop_path": 2.0}, "a probability below 1"),
    ],
)
def test_wrong_settings_are_answered_in_full(name, setting, message):
    with pytest.raises(ConfigError, match=message):
        create(name, **setting)


def test_sizes_that_do_not_fit_name_the_nearest_that_do():
    with pytest.raises(ImageSizeError, match="height 32 or 64 and width 64"):
        create("hiera_tiny", image_size=(33, 64))
