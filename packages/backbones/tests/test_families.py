"""What training code is told about an encoder as data, for every family: groups, decay, blocks, checkpointing."""

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed.fsdp import fully_shard
from unveil_backbones import Encoder, FeaturePyramid, ImageTextPair, create, create_text, names, rebuild
from unveil_backbones.errors import ImageSizeError, TokenCountError

FAMILIES = ("vit_tiny", "swinv2_tiny", "hiera_tiny", "timm:test_vit2", "timm:vit_tiny_patch16_dinov3_qkvb")
# Millions of parameters without decoder and head (arXiv 2206.04664, released models).
STUDY = {"swinv2_s": 49, "swinv2_b": 87, "swinv2_l": 195, "swinv2_h": 655, "swinv2_g": 1060}


def small(name: str, **overrides: float) -> Encoder:
    torch.manual_seed(0)
    return create(name, image_size=64, **overrides)


def blocks(encoder: Encoder) -> list[nn.Module]:
    return [encoder.get_submodule(name) for name in encoder.block_names()]


@pytest.mark.parametrize(("name", "millions"), STUDY.items())
def test_the_studys_encoders_have_the_released_sizes(name, millions):
    with torch.device("meta"):
        encoder = create(name)
    assert abs(encoder.num_parameters / 1e6 / millions - 1) < 0.005
    widths = {"swinv2_s": 96, "swinv2_b": 128, "swinv2_l": 192, "swinv2_h": 352, "swinv2_g": 448}
    config = encoder.config
    assert (config.width, config.depths, config.image_size) == (widths[name], (2, 2, 18, 2), (192, 192))
    assert all(widths[name] * 2**stage // heads == 32 for stage, heads in enumerate(config.num_heads))
    assert config.pretrained_window_sizes == ((12, 12), (12, 12), (12, 12), (6, 6))


@pytest.mark.parametrize("name", [*names(), *FAMILIES[3:], "timm:vit_small_patch14_reg4_dinov2"])
def test_groups_hold_every_parameter_once_and_follow_the_blocks(name):
    with torch.device("meta"):
        encoder = create(name)
    groups = encoder.layer_groups()
    assert sorted(parameter for group in groups for parameter in group) == sorted(dict(encoder.named_parameters()))
    assert all(groups)
    assert len(groups) == len(encoder.block_names()) + 2
    for block, group in zip(encoder.block_names(), groups[1:-1], strict=True):
        inside = {f"{block}.{parameter}" for parameter, _ in encoder.get_submodule(block).named_parameters()}
        assert inside <= set(group)
        assert inside == set(group) or name.startswith("swinv2")


def reference_layer(name: str, depths: tuple[int, ...]) -> int:
    """The rule of the study's fine-tuning, for timm's names, where a stage's merging is stored in the next stage."""
    if name.startswith("patch_embed."):
        return 0
    if block := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name):
        return sum(depths[: int(block[1])]) + int(block[2]) + 1
    if merging := re.match(r"layers\.(\d+)\.downsample\.", name):
        return sum(depths[: int(merging[1])])
    return sum(depths) + 1


def test_every_swin_block_is_a_layer_and_merging_belongs_to_the_block_before_it():
    with torch.device("meta"):
        encoder = create("swinv2_b")
    groups = encoder.layer_groups()
    assert len(groups) == 26
    for layer, group in enumerate(groups):
        assert {reference_layer(name, (2, 2, 18, 2)) for name in group} == {layer}


def test_vit_layers_are_those_of_mae_fine_tuning():
    with torch.device("meta"):
        groups = create("vit_b16").layer_groups()
    assert len(groups) == 14
    assert set(groups[0]) == {"cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert all(name.startswith("blocks.11.") for name in groups[12])
    assert groups[13] == ["norm.weight", "norm.bias"]


@pytest.mark.parametrize("name", FAMILIES)
def test_weight_decay_reaches_matrices_only(name):
    encoder = small(name)
    spared = encoder.no_weight_decay()
    assert spared <= set(dict(encoder.named_parameters()))
    for parameter, value in encoder.named_parameters():
        told_apart = any(word in parameter for word in ("token", "pos_embed", "cpb_mlp", "logit_scale", "rope."))
        assert (parameter in spared) == (value.squeeze().ndim <= 1 or told_apart), parameter


@pytest.mark.parametrize("name", FAMILIES)
def test_drop_path_grows_linearly_and_changes_by_rebuilding(name):
    encoder = small(name)
    assert all(getattr(block.drop_path1, "drop_prob", 0.0) == 0.0 for block in blocks(encoder))
    changed = blocks(rebuild(encoder, replace(encoder.config, drop_path=0.3)))
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in changed]
    assert rates == pytest.approx(torch.linspace(0, 0.3, len(rates)).tolist(), abs=1e-6)
    assert rates == [getattr(block.drop_path2, "drop_prob", 0.0) for block in changed]


@pytest.mark.parametrize("name", FAMILIES)
def test_activation_checkpointing_changes_memory_and_no_gradient(name):
    """With drop path, whose decisions the second forward pass has to repeat."""
    encoder, images = small(name, drop_path=0.5).train(), torch.randn(4, 3, 64, 64)
    results, runs = [], []
    handle = blocks(encoder)[1].register_forward_pre_hook(lambda *_: runs.append(None))
    for again in (False, True):
        encoder.checkpoint_blocks = again
        encoder.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        pooled = encoder(images)
        pooled.square().sum().backward()
        results.append((pooled, {key: value.grad for key, value in encoder.named_parameters()}))
    handle.remove()
    assert len(runs) == 3  # once without, twice with
    assert torch.equal(results[0][0], results[1][0])
    for key, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][key], gradient, atol=1e-6, rtol=1e-5, msg=key)


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_are_units_to_shard(name, process_group):
    encoder, images = small(name).eval(), torch.randn(1, 3, 64, 64)
    expected = encoder(images)
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    for block in blocks(encoder):
        fully_shard(block, mesh=mesh)
    fully_shard(encoder, mesh=mesh)
    torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=0)
    encoder(images).sum().backward()
    assert sum(len(list(block.parameters())) for block in blocks(encoder)) > 0.5 * len(list(encoder.parameters()))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_pyramid_at_any_rectangular_size(name):
    pyramid = FeaturePyramid(small(name))
    maps = pyramid(torch.randn(1, 3, 64, 96))
    assert [tuple(one.shape[1:]) for one in maps] == [
        (channels, 64 // stride, 96 // stride)
        for channels, stride in zip(pyramid.channels, (4, 8, 16, 32), strict=True)
    ]
    sum(one.square().mean() for one in maps).backward()
    first = pyramid.encoder.get_submodule("patch_embed.proj").weight
    assert first.grad.abs().sum() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_named_intermediates_are_the_blocks_and_what_is_inside(name):
    encoder, images = small(name).eval(), torch.randn(1, 3, 64, 64)
    wanted = encoder.intermediate_names()
    assert set(encoder.block_names()) <= set(wanted)
    inner = f"{encoder.block_names()[0]}.mlp.fc1"
    found = encoder.intermediates(images, [*wanted, inner])
    assert list(found) == [*wanted, inner]
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_under_autocast_is_near_to_float32(name):
    encoder, images = small(name).eval(), torch.randn(2, 3, 64, 96)
    expected = encoder(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = encoder(images)
    assert (mixed.float() - expected).abs().max() < 0.1 * expected.abs().max()


@settings(max_examples=30, deadline=None)
@given(name=st.sampled_from(FAMILIES), height=st.integers(0, 300), width=st.integers(0, 300))
def test_every_size_is_legal_or_answered_with_the_nearest_legal_ones(name, height, width):
    with torch.device("meta"):
        encoder = small(name)
    stride = encoder.stride
    if height and width and height % stride == 0 and width % stride == 0:
        assert encoder.grid(height, width) == (height // encoder.patch_size, width // encoder.patch_size)
        return
    with pytest.raises(ImageSizeError) as error:
        encoder.grid(height, width)
    named = re.search(r"to height (\d+)(?: or (\d+))? and width (\d+)(?: or (\d+))?$", str(error.value))
    sides = [[int(side) for side in named.groups()[at : at + 2] if side] for at in (0, 2)]
    for given_side, near in zip((height, width), sides, strict=True):
        assert near[0] <= given_side <= near[-1] or near == [stride]
        assert near[-1] - near[0] in (0, stride)
    encoder.grid(sides[0][0], sides[1][-1])


def units_of(encoder: Encoder, grid: tuple[int, int], kept: list[list[int]]) -> torch.Tensor:
    """Raster indices of the kept mask units, which are single tokens for most encoders."""
    side = encoder.mask_unit
    token = torch.arange(grid[0] * grid[1])
    unit = token // grid[1] // side * (grid[1] // side) + token % grid[1] // side
    return torch.stack([token[torch.isin(unit, torch.tensor(sample))] for sample in kept])


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith("swinv2")])
def test_pairs_encode_what_was_kept(name):
    encoder = small(name).eval()
    pair = ImageTextPair(encoder, create_text("text_tiny", 60, 6), embed_dim=16).eval()
    images, grid = torch.randn(2, 3, 64, 64), encoder.grid(64, 64)
    keep = units_of(encoder, grid, [[0, 3], [1, 2]])
    vectors = pair.encode_image_tokens(encoder.embed(images, keep), grid, keep)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    one = pair.encode_image_tokens(encoder.embed(images[1:], keep[1:]), grid, keep[1:])
    torch.testing.assert_close(vectors[1:], one, atol=1e-5, rtol=0)
    everything = torch.arange(grid[0] * grid[1]).expand(2, -1)
    whole = pair.encode_image_tokens(encoder.embed(images, everything), grid, everything)
    torch.testing.assert_close(whole, pair.encode_image(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_keep_has_an_entry_for_each_token(name):
    encoder = small(name)
    grid = encoder.grid(64, 64)
    tokens = torch.zeros(1, grid[0] * grid[1], encoder.embed_width)
    with pytest.raises(TokenCountError, match="`keep`"):
        encoder.encode(tokens, grid, torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(TokenCountError, match=rf"{name.rpartition(':')[2]}.* tokens"):
        encoder.encode(torch.cat([tokens, tokens], dim=1), grid)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FAMILIES)
def test_a_gpu_computes_the_same_as_a_cpu(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    encoder = small(name).eval()
    images, grid = torch.randn(2, 3, 64, 64), encoder.grid(64, 64)
    keep = units_of(encoder, grid, [[0, 3], [1, 2]]) if encoder.accepts_subset else None
    expected = encoder.encode_pooled(encoder.embed(images, keep), grid, keep)
    expected.square().sum().backward()
    gradients = {key: value.grad for key, value in encoder.named_parameters()}
    encoder.zero_grad(set_to_none=True)
    there = encoder.cuda()
    moved = None if keep is None else keep.cuda()
    found = there.encode_pooled(there.embed(images.cuda(), moved), grid, moved)
    found.square().sum().backward()
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=0)
    for key, value in there.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(value.grad.cpu(), gradients[key], atol=1e-3, rtol=1e-3, msg=key)
