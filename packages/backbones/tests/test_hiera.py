"""Hiera equals timm's, whole and masked, at any size; hidden units leave no trace."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import create_model
from timm.models.hiera import Hiera
from unveil_backbones import HieraConfig, HieraEncoder, ImageSizeError, KeepError, create
from unveil_backbones.errors import ConfigError, TokenCountError
from unveil_backbones.flops import count_cost
from unveil_backbones.hiera_presets import HIERA_PRESETS

CONFIG = HieraConfig(image_size=(64, 96), width=16, depths=(1, 2, 2, 1), num_heads=1)
WINDOWED = replace(CONFIG, position="windowed", global_grid=(3, 5), layer_scale=0.1, expand_projection=False)


def with_random_weights(config: HieraConfig) -> HieraEncoder:
    """Norms and biases too, so that each is tested."""
    encoder = HieraEncoder(config).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder


def timm_twin(encoder: HieraEncoder, size: tuple[int, int]) -> Hiera:
    config = encoder.config
    twin = Hiera(
        img_size=size,
        embed_dim=config.width,
        num_heads=config.num_heads,
        stages=config.depths,
        num_classes=0,
        init_values=config.layer_scale,
        use_expand_proj=config.expand_projection,
        abs_win_pos_embed=config.position == "windowed",
        global_pos_size=config.global_grid,
    )
    state = encoder.state_dict()
    if config.position == "learned":
        base = [side // 4 for side in config.image_size]
        state["pos_embed"] = resample_abs_pos_embed(
            state["pos_embed"], [side // 4 for side in size], base, num_prefix_tokens=0
        )
    twin.load_state_dict(state)
    return twin.eval()


def keep_of(units: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Raster indices of the tokens of units [b, u], ascending as masking strategies give them."""
    rows, cols = grid
    token = torch.arange(rows * cols)
    unit = token // cols // 8 * (cols // 8) + token % cols // 8
    return torch.stack([token[torch.isin(unit, sample)] for sample in units])


def assert_equal_gradients(encoder: HieraEncoder, twin: Hiera, but: tuple[str, ...] = ()):
    gradients = {name: parameter.grad for name, parameter in twin.named_parameters()}
    assert gradients.keys() == dict(encoder.named_parameters()).keys()
    for name, parameter in encoder.named_parameters():
        if name not in but:
            torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("config", [CONFIG, WINDOWED])
@pytest.mark.parametrize("size", [(64, 96), (96, 32)])
def test_forward_and_backward_equal_timm(config, size):
    encoder = with_random_weights(config)
    twin = timm_twin(encoder, size)
    images = torch.randn(2, 3, *size)
    ours, theirs = encoder.encode(encoder.embed(images), encoder.grid(*size)), twin.forward_features(images)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    for native, expected in zip(
        encoder.features(images), twin.forward_intermediates(images, intermediates_only=True), strict=True
    ):
        torch.testing.assert_close(native, expected, atol=1e-5, rtol=0)
    pooled, expected = encoder(images), twin(images)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=0)
    weight = torch.randn_like(pooled)
    (pooled * weight).sum().backward()
    (expected * weight).sum().backward()
    # timm's twin of another size has a table of that size.
    resampled = config.position == "learned" and size != config.image_size
    assert_equal_gradients(encoder, twin, ("pos_embed",) if resampled else ())


@pytest.mark.parametrize("config", [CONFIG, WINDOWED])
def test_masked_forward_and_backward_equal_timm(config):
    encoder = with_random_weights(config)
    twin, images = timm_twin(encoder, (64, 96)), torch.randn(2, 3, 64, 96)
    units, grid = torch.tensor([[0, 4, 5], [1, 2, 3]]), (16, 24)
    keep = keep_of(units, grid)
    ours = encoder.encode(encoder.embed(images, keep), grid, keep)
    mask = torch.zeros(2, 6, dtype=torch.bool).scatter(1, units, True)
    theirs = twin.forward_features(images, mask=mask)
    assert ours.shape == (2, 3, encoder.width)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    for parameter in (*encoder.head.parameters(), *twin.head.parameters()):
        parameter.grad = torch.zeros_like(parameter)
    assert_equal_gradients(encoder, twin)


@pytest.mark.slow
def test_masked_encoding_is_one_graph_for_the_compiler():
    """In a process of its own: the run-time checks of these tests are not made for the compiler."""
    code = """
import torch
from unveil_backbones import create
encoder = create("hiera_tiny").eval()
run = lambda images, keep: encoder.encode_pooled(encoder.embed(images, keep), (16, 16), keep)
compiled = torch.compile(run, backend="eager", fullgraph=True)
images = torch.randn(1, 3, 64, 64)
token = torch.arange(256)
for unit in (0, 3):
    keep = token[(token // 16 // 8 * 2 + token % 16 // 8) == unit][None]
    torch.testing.assert_close(compiled(images, keep), run(images, keep))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(1, 6))
def test_the_order_of_keep_does_not_matter_and_hidden_pixels_leave_no_trace(seed, num):
    encoder, grid = HieraEncoder(CONFIG).eval(), (16, 24)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(1, 3, 64, 96, generator=generator)
    keep = keep_of(torch.randperm(6, generator=generator)[None, :num], grid)
    shuffled = keep[:, torch.randperm(keep.shape[1], generator=generator)]
    seen = torch.zeros(1, 384, dtype=torch.bool).scatter(1, keep, True).reshape(1, 1, 16, 24)
    seen = seen.repeat_interleave(4, 2).repeat_interleave(4, 3)
    other = torch.where(seen, images, torch.randn(1, 3, 64, 96, generator=generator))
    with torch.inference_mode():
        plain = encoder.encode(encoder.embed(images, keep), grid, keep)
        for changed, order in ((images, shuffled), (other, keep)):
            again = encoder.encode(encoder.embed(changed, order), grid, order)
            torch.testing.assert_close(again, plain, atol=1e-5, rtol=0)
            pooled = encoder.encode_pooled(encoder.embed(changed, order), grid, order)
            torch.testing.assert_close(pooled, encoder.pool(plain), atol=1e-5, rtol=0)


def test_keeping_everything_equals_no_keep():
    encoder, images = HieraEncoder(CONFIG).eval(), torch.randn(2, 3, 64, 96)
    keep = torch.arange(384).expand(2, -1)
    assert torch.equal(encoder.embed(images, keep), encoder.embed(images))
    tokens = encoder.embed(images)
    assert torch.equal(encoder.encode(tokens, (16, 24), keep), encoder.encode(tokens, (16, 24)))


def test_intermediates_are_maps():
    encoder, images = HieraEncoder(CONFIG).eval(), torch.randn(2, 3, 64, 96)
    names = ["blocks.0", "blocks.2", "blocks.4", "blocks.5", "blocks.1.attn"]
    found = encoder.intermediates(images, names)
    for name, native in zip(names, encoder.features(images), strict=False):
        assert torch.equal(found[name], native.permute(0, 2, 3, 1))
    assert found["blocks.1.attn"].shape == (2, 96, 32)  # pooled once: a quarter of the tokens, twice the width


@pytest.mark.parametrize(
    ("name", "timm_name", "millions"),
    [
        # arXiv 2306.00989, table 2, which counts a classifier of 1000 classes.
        ("hiera_t", "hiera_tiny_224", 28),
        ("hiera_s", "hiera_small_224", 35),
        ("hiera_b", "hiera_base_224", 52),
        ("hiera_bp", "hiera_base_plus_224", 70),
        ("hiera_l", "hiera_large_224", 214),
        ("hiera_h", "hiera_huge_224", 673),
    ],
)
def test_shapes_are_the_papers(name, timm_name, millions):
    with torch.device("meta"):
        encoder, twin = create(name), create_model(timm_name)
    classifier = sum(parameter.numel() for parameter in twin.head.fc.parameters())
    assert encoder.num_parameters == sum(parameter.numel() for parameter in twin.parameters()) - classifier
    assert round((encoder.num_parameters + classifier) / 1e6) == millions
    expected = {key: value.shape for key, value in twin.state_dict().items() if not key.startswith("head.fc.")}
    assert {key: value.shape for key, value in encoder.state_dict().items()} == expected


def test_layer_groups_follow_the_blocks_across_stages():
    encoder = HieraEncoder(WINDOWED)
    groups = encoder.layer_groups()
    assert sorted(name for group in groups for name in group) == sorted(name for name, _ in encoder.named_parameters())
    assert len(groups) == 1 + sum(CONFIG.depths) + 1
    assert groups[0] == ["pos_embed", "pos_embed_win", "patch_embed.proj.weight", "patch_embed.proj.bias"]
    assert groups[-1] == ["head.norm.weight", "head.norm.bias"]
    assert "blocks.1.proj.weight" in HieraEncoder(CONFIG).layer_groups()[2]
    assert encoder.block_names() == tuple(f"blocks.{index}" for index in range(6))


def test_weight_decay_spares_positions_norms_and_biases():
    encoder = HieraEncoder(CONFIG)
    decayed = {name for name, _ in encoder.named_parameters()} - encoder.no_weight_decay()
    assert decayed == {name for name, value in encoder.named_parameters() if value.ndim > 1} - {"pos_embed"}


def test_fewer_units_cost_less():
    spec = HieraEncoder(HIERA_PRESETS["hiera_tiny"], "hiera_tiny").spec
    whole, half = count_cost(spec), count_cost(spec, num_kept=128)
    assert 0.45 < half.multiply_adds / whole.multiply_adds < 0.6  # the overlapping patches are embedded for all


def test_parts_of_units_are_refused():
    encoder, images = HieraEncoder(CONFIG), torch.randn(1, 3, 64, 96)
    keep = keep_of(torch.tensor([[1, 2]]), (16, 24))
    tokens = encoder.embed(images, keep)
    torn, twice = keep.clone(), keep.clone()
    torn[0, 0], twice[0, 0] = 0, keep[0, 1]
    message = r"`keep` names 128 tokens that are not whole mask units; units are squares of 8 x 8 tokens, .*mask by"
    for wrong in (torn, twice):
        with pytest.raises(KeepError, match=message):
            encoder.embed(images, wrong)
        with pytest.raises(KeepError, match=message):
            encoder.encode(tokens, (16, 24), wrong)
    with pytest.raises(KeepError, match="names 127 tokens"):
        encoder.embed(images, keep[:, 1:])


def test_a_part_without_keep_is_refused():
    encoder = HieraEncoder(CONFIG)
    with pytest.raises(KeepError, match=r"hiera got 64 of 384 tokens and no `keep`; .*pass `encode` the `keep` that"):
        encoder.encode(torch.zeros(1, 64, 16), (16, 24))
    with pytest.raises(TokenCountError, match=r"128 tokens and `keep` for 64"):
        encoder.encode(torch.zeros(1, 128, 16), (16, 24), torch.arange(64)[None])


def test_image_sizes_have_to_be_whole_units():
    with pytest.raises(ImageSizeError, match="multiples of 32; resize or pad to height 64 or 96 and width 96"):
        HieraEncoder(CONFIG).embed(torch.zeros(1, 3, 80, 96))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (1, 1, 1)}, "there are 4 stages"),
        ({"depths": (1, 1, 0, 1)}, "at least one block"),
        ({"num_heads": 3}, "width 16 with 3 heads"),
        ({"drop_path": 1.0}, "a probability below 1"),
        ({"layer_scale": 0.0}, "both are positive"),
    ],
)
def test_configurations_that_make_no_encoder(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **change)
