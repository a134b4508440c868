"""The encoder of clips: shapes, sizes by formula, positions, kept tokens, costs, checkpoints, and wrong requests."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from unveil_backbones import VideoVitConfig, VideoVitEncoder, build, create, load, names, rebuild, save
from unveil_backbones.errors import (
    BackboneError,
    ConfigError,
    ImageSizeError,
    ManifestError,
    TensorMismatchError,
    TokenCountError,
    UnknownLayerError,
)
from unveil_backbones.flops import count_cost, encoder_cost
from unveil_backbones.position_clip import clip_position
from unveil_backbones.specs import EncoderSpec
from unveil_backbones.vit_video import cubes_of
from unveil_backbones.vit_video_presets import VIT_VIDEO_PRESETS

# arXiv 2203.12602, comparison on Kinetics-400: millions of parameters with a classifier of 400 Kinetics classes.
RELEASED = {"vit_video_s16": 22, "vit_video_b16": 87, "vit_video_l16": 305, "vit_video_h16": 633}
SMALL = VideoVitConfig(image_size=(16, 24), num_frames=4, patch_size=8, width=16, depth=2, num_heads=2)


def small(**changes):
    torch.manual_seed(0)
    encoder = VideoVitEncoder(replace(SMALL, **changes))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder.eval()


def formula(config):
    """Parameters by hand: projection of a cube, blocks, the final norm."""
    d, hidden = config.width, int(config.width * config.mlp_ratio)
    cube = 3 * config.tubelet * config.patch_size**2
    block = 2 * 2 * d + (3 * d * d + 3 * d) + (d * d + d) + (d * hidden + hidden) + (hidden * d + d)
    return cube * d + d + config.depth * block + 2 * d


@pytest.mark.parametrize("name", VIT_VIDEO_PRESETS)
def test_parameters_are_those_of_the_formula(name):
    with torch.device("meta"):
        encoder = create(name)
    assert encoder.num_parameters == formula(encoder.config)


@pytest.mark.parametrize(("name", "millions"), RELEASED.items())
def test_parameters_are_the_released_ones(name, millions):
    config = VIT_VIDEO_PRESETS[name]
    classifier = 400 * config.width + 400
    # One bias of keys for each channel and block is timm's; a softmax does not see it.
    assert abs((formula(config) - config.depth * config.width + classifier) / 1e6 - millions) < 1


def test_the_published_token_counts():
    with torch.device("meta"):
        encoder = create("vit_video_b16")
    assert encoder.clip_grid(16, 224, 224) == (8, 14, 14)
    assert encoder.embed(torch.empty(1, 3, 16, 224, 224, device="meta")).shape == (1, 1568, 768)


def test_shapes_of_everything_an_encoder_offers():
    encoder, clips = small(), torch.randn(2, 3, 4, 16, 24)
    grid = encoder.clip_grid(4, 16, 24)
    assert grid == (2, 2, 3)
    tokens = encoder.embed(clips)
    assert tokens.shape == (2, 12, 16)
    assert encoder.encode(tokens, grid).shape == (2, 12, 16)
    assert encoder(clips).shape == (2, 16)
    torch.testing.assert_close(encoder(clips), encoder.encode_pooled(tokens, grid))
    (feature,) = encoder.features(clips)
    assert feature.shape == (2, 16, 2, 2, 3)
    torch.testing.assert_close(feature.flatten(2).mean(2), encoder(clips))
    places = torch.tensor([[0, 5], [11, 3]])
    wanted = torch.take_along_dim(encoder.encode(tokens, grid), places[:, :, None], 1)
    torch.testing.assert_close(encoder.encode_at(tokens, grid, places), wanted)
    assert encoder.block_names() == ("blocks.0", "blocks.1")
    found = encoder.intermediates(clips, ["blocks.0", "norm"])
    torch.testing.assert_close(found["norm"], encoder.encode(tokens, grid))
    with pytest.raises(UnknownLayerError):
        encoder.intermediates(clips, ["blocks.9"])


def test_a_cube_is_what_a_convolution_over_three_axes_sees():
    encoder, clips = small(), torch.randn(2, 3, 4, 16, 24)
    expected = encoder.patch_embed.proj(clips).flatten(2).transpose(1, 2) + encoder.base_position
    torch.testing.assert_close(encoder.embed(clips), expected, atol=1e-5, rtol=1e-5)
    cubes = cubes_of(clips, 2, 8)
    assert torch.equal(cubes[1, 1, 0, 2], clips[1, :, 2:4, 0:8, 16:24])


@pytest.mark.parametrize("optimised", [True, False])
def test_kept_tokens_are_those_of_the_whole_clip_in_the_order_of_keep(optimised):
    encoder, clips = small(), torch.randn(2, 3, 4, 16, 24)
    encoder.set_optimisations(encoder.OPTIMISATIONS if optimised else ())
    keep = torch.tensor([[7, 0, 11], [3, 4, 10]])
    expected = torch.take_along_dim(encoder.embed(clips), keep[:, :, None], 1)
    torch.testing.assert_close(encoder.embed(clips, keep), expected, atol=1e-6, rtol=1e-6)
    grid = encoder.clip_grid(4, 16, 24)
    shuffled = torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        encoder.encode(encoder.embed(clips, keep[:, shuffled]), grid, keep[:, shuffled]),
        encoder.encode(encoder.embed(clips, keep), grid, keep)[:, shuffled],
        atol=1e-5,
        rtol=1e-5,
    )


def test_attention_is_joint_over_space_and_time():
    encoder, clips = small(), torch.randn(1, 3, 4, 16, 24)
    changed = clips.clone()
    changed[:, :, 2:, 8:, :8] += 1.0  # one cube of the second slot
    before, after = (encoder.features(one)[0] for one in (clips, changed))
    assert ((after - before).abs().amax(dim=(0, 1)) > 1e-6).all()


def by_hand(index, width):
    return [
        (math.sin if channel % 2 == 0 else math.cos)(index / 10000 ** (2 * (channel // 2) / width))
        for channel in range(width)
    ]


def test_positions_count_the_tokens_slot_by_slot():
    found = clip_position((3, 2, 4), 6)
    assert found.shape == (24, 6)
    for index in (0, 1, 7, 8, 23):
        assert found[index].tolist() == pytest.approx(by_hand(index, 6), abs=1e-6)
    with pytest.raises(ConfigError, match="even number of channels; choose 8"):
        clip_position((1, 1, 1), 7)


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_a_finer_grid_keeps_what_lies_in_the_middle_of_three(slots, rows, cols, axis):
    """Three times as many cells along an axis: every second of three has its centre where the coarse cell had it."""
    base = (slots, rows, cols)
    finer = tuple(3 * side if index + 1 == axis else side for index, side in enumerate(base))
    coarse = clip_position(base, 8).reshape(*base, 8)
    fine = clip_position(finer, 8, base=base).reshape(*finer, 8)
    picked = fine.narrow(axis - 1, 1, finer[axis - 1] - 1)[(slice(None),) * (axis - 1) + (slice(None, None, 3),)]
    torch.testing.assert_close(picked, coarse, atol=1e-6, rtol=0)


def test_other_sizes_and_lengths_than_those_of_pre_training_run():
    encoder = small()
    assert encoder(torch.randn(1, 3, 6, 32, 8)).shape == (1, 16)
    assert encoder.positions((2, 2, 3)) is encoder.base_position


@pytest.mark.parametrize("name", ["vit_video_tiny", "vit_video_s16", "vit_video_b16"])
def test_the_cost_formula_is_what_pytorch_counts(name):
    config = VIT_VIDEO_PRESETS[name]
    spec = EncoderSpec(name, config.to_json())
    assert encoder_cost(config) == count_cost(spec)
    assert encoder_cost(config, num_kept=8) == count_cost(spec, num_kept=8)


def test_costs_by_hand_and_as_published():
    # arXiv 2203.12602, comparison on Kinetics-400: cost of one view of 16 frames.
    published = {"vit_video_s16": 57, "vit_video_b16": 180, "vit_video_l16": 597}
    for name, billions in published.items():
        assert encoder_cost(VIT_VIDEO_PRESETS[name]).multiply_adds / 1e9 == pytest.approx(billions, rel=0.01)
    d, n = 16, 12
    assert encoder_cost(SMALL).multiply_adds == n * 3 * 2 * 64 * d + 2 * (12 * n * d * d + 2 * n * n * d)
    with pytest.raises(TokenCountError, match="at most 12"):
        encoder_cost(SMALL, num_kept=13)


def test_a_checkpoint_comes_back_with_its_clips_shape(tmp_path, manifest_for):
    encoder = small(num_frames=6, tubelet=3, drop_path=0.1)
    path = save(tmp_path / "step", encoder=encoder, manifest=manifest_for(encoder))
    config = json.loads((path / "manifest.json").read_text())["encoder"]["config"]
    assert (config["num_frames"], config["tubelet"], config["image_size"]) == (6, 3, [16, 24])
    loaded = load(path).encoder
    assert loaded.config == encoder.config
    clips = torch.randn(1, 3, 6, 16, 24)
    assert torch.equal(loaded(clips), encoder(clips))


def edited(tmp_path, manifest_for, **changes):
    encoder = small()
    path = save(tmp_path / "step", encoder=encoder, manifest=manifest_for(encoder))
    content = json.loads((path / "manifest.json").read_text())
    content["encoder"]["config"] |= changes
    (path / "manifest.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"num_frames": 2**24},  # a table of positions that fills the memory
        {"num_frames": 0},
        {"num_frames": -2},
        {"num_frames": 5},
        {"num_frames": "4"},
        {"tubelet": 0},
        {"tubelet": 2.5},
        {"num_frames": 4, "image_size": [2**20, 2**20]},
        {"unknown": 1},
        {"num_heads": 0},
        {"num_heads": 3},
        {"depth": 0},
    ],
)
def test_a_hostile_manifest_is_an_error_with_a_name(tmp_path, manifest_for, changes):
    with pytest.raises(ManifestError, match=r"manifest\.json|encoder\.config"):
        load(edited(tmp_path, manifest_for, **changes))


def test_weights_of_another_shape_are_named(tmp_path, manifest_for):
    with pytest.raises(TensorMismatchError, match=r"patch_embed\.proj\.weight: .*16, 3, 2, 8, 8"):
        load(edited(tmp_path, manifest_for, tubelet=4))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"num_frames": 5}, "whole number of tubelets; give a multiple of 2 frames"),
        ({"tubelet": 0}, "whole number of tubelets"),
        ({"num_frames": 0}, "whole number of tubelets"),
        ({"width": 15, "num_heads": 3}, "is even"),
        ({"num_heads": 0}, "multiple of the heads"),
        ({"depth": 0}, "all are positive"),
        ({"mlp_ratio": 0.0}, "all are positive"),
        ({"drop_path": 1.0}, "a probability below 1"),
        ({"image_size": (16, 20)}, "multiples of 8"),
    ],
)
def test_shapes_that_make_no_encoder_are_refused(given, match):
    with pytest.raises((ConfigError, ImageSizeError), match=match):
        replace(SMALL, **given)


def test_images_and_clips_are_not_mixed_up():
    encoder = small()
    with pytest.raises(ImageSizeError, match="takes clips: batch, channels, frames, height, width"):
        encoder._grid_of(torch.zeros(1, 3, 16, 24))
    with pytest.raises(ImageSizeError, match="clip of 5 frames; it takes multiples of 2; take 4 or 6 frames"):
        encoder(torch.zeros(1, 3, 5, 16, 24))
    with pytest.raises(ImageSizeError, match="take 2 frames"):
        encoder.clip_grid(0, 16, 24)
    with pytest.raises(TokenCountError, match="three sides"):
        encoder.encode(torch.zeros(1, 6, 16), (2, 3))
    with pytest.raises(TokenCountError, match="13 tokens for a grid of 2 x 2 x 3; it takes at most 12"):
        encoder.encode(torch.zeros(1, 13, 16), (2, 2, 3))
    with pytest.raises(TokenCountError, match="`keep`"):
        encoder.encode(torch.zeros(1, 4, 16), (2, 2, 3), torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(TokenCountError, match="at most 12"):
        encoder.embed(torch.zeros(1, 3, 4, 16, 24), torch.zeros(1, 13, dtype=torch.int64))


def test_settings_by_name_and_rebuilding():
    encoder = create("vit_video_tiny", num_frames=4, image_size=32, drop_path=0.3)
    assert (encoder.config.num_frames, encoder.config.image_size) == (4, (32, 32))
    assert [round(getattr(block.drop_path1, "drop_prob", 0.0), 3) for block in encoder.blocks] == [0, 0.1, 0.2, 0.3]
    assert build(encoder.spec).config == encoder.config
    longer = rebuild(encoder, replace(encoder.config, num_frames=8))
    assert torch.equal(longer.norm.weight, encoder.norm.weight)
    with pytest.raises(ConfigError, match="no settings"):
        create("vit_tiny", num_frames=4)
    with pytest.raises(ConfigError, match="num_frames is 'four'"):
        create("vit_video_tiny", num_frames="four")
    assert [name for name in names() if name.startswith("vit_video")] == list(VIT_VIDEO_PRESETS)


def test_activation_checkpointing_changes_no_gradient():
    encoder, clips = small(drop_path=0.5).train(), torch.randn(4, 3, 4, 16, 24)
    gradients = []
    for again in (False, True):
        encoder.checkpoint_blocks = again
        encoder.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        encoder(clips).square().sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_it_is_an_error_of_this_package_whatever_is_wrong():
    for error in (ConfigError, ImageSizeError, TokenCountError, ManifestError):
        assert issubclass(error, BackboneError)


@pytest.mark.gpu
def test_a_gpu_computes_the_same_as_a_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    encoder, clips = small(), torch.randn(2, 3, 4, 16, 24)
    keep = torch.tensor([[7, 0, 11], [3, 4, 10]])
    grid = encoder.clip_grid(4, 16, 24)
    expected = encoder.encode(encoder.embed(clips, keep), grid, keep)
    there = encoder.cuda()
    found = there.encode(there.embed(clips.cuda(), keep.cuda()), grid, keep.cuda())
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=0)
