"""Visible units alone give what a dense SwinV2 gives that leaves hidden keys out of its attention."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from unveil_backbones import SwinConfig, SwinEncoder
from unveil_backbones.errors import ConfigError, ImageSizeError, TokenCountError
from unveil_backbones.swin import clamped_windows
from unveil_backbones.swin_packing import z_order
from unveil_backbones.swin_sparse import encode_units


def made(image=(96, 128), window=6, width=16, depths=(2, 2, 2, 2), seed=0):
    torch.manual_seed(seed)
    windows = (window,) * 4
    config = SwinConfig(
        image_size=image,
        width=width,
        depths=depths,
        num_heads=(1, 2, 4, 8),
        window_sizes=windows,
        pretrained_window_sizes=clamped_windows(image, 4, windows),
    )
    encoder = SwinEncoder(config).eval()
    with torch.no_grad():  # SwinV2's last norms begin at zero
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder


def some_units(image, side, kept, num=2):
    total = (image[0] // side) * (image[1] // side)
    return torch.stack([torch.randperm(total)[:kept].sort().values for _ in range(num)])


def seen_map(units, image, side, cell):
    """Bool [b, rows, cols] of the tokens of `cell` pixels that are visible."""
    rows, cols = image[0] // side, image[1] // side
    seen = torch.zeros(len(units), rows * cols, dtype=torch.bool).scatter(1, units, True).view(-1, rows, cols)
    return seen.repeat_interleave(side // cell, 1).repeat_interleave(side // cell, 2)


def dense_without_hidden_keys(encoder, images, units, side):
    """The dense encoder written out on maps: roll, cut windows, mask hidden keys and other regions by -inf."""
    config, image = encoder.config, tuple(images.shape[-2:])
    x = encoder.patch_embed(images)
    for index, stage in enumerate(encoder.layers):
        if index:
            batch, rows, cols, _ = x.shape
            x = x.view(batch, rows // 2, 2, cols // 2, 2, -1).permute(0, 1, 3, 4, 2, 5).flatten(3)
            x = stage.downsample.norm(stage.downsample.reduction(x))
        rows, cols = x.shape[1:3]
        wanted = config.window_sizes[index]
        window = (min(wanted, rows), min(wanted, cols))
        seen = seen_map(units, image, side, 4 << index)
        for number, block in enumerate(stage.blocks):
            shift = [wanted // 2 if number % 2 and length > wanted else 0 for length in (rows, cols)]
            attended = attention_on_maps(block.attn, x, seen, window, shift, config.pretrained_window_sizes[index])
            x = x + block.norm1(attended)
            x = x + block.norm2(block.mlp(x))
    return encoder.norm(x)


def attention_on_maps(attention, x, seen, window, shift, pretrained):
    batch, rows, cols, width = x.shape
    heads = attention.num_heads
    padding = [-(-length // side) * side - length for length, side in zip((rows, cols), window, strict=True)]

    def cut(maps, value):
        rolled = torch.roll(maps, (-shift[0], -shift[1]), (1, 2))
        rolled = F.pad(rolled, (0, 0, 0, padding[1], 0, padding[0]), value=value)
        high, wide = rolled.shape[1:3]
        parts = rolled.view(batch, high // window[0], window[0], wide // window[1], window[1], -1)
        return parts.permute(0, 1, 3, 2, 4, 5).reshape(-1, window[0] * window[1], rolled.shape[3])

    place = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij"), -1)
    wrapped = (
        torch.stack([place[..., axis] < shift[axis] for axis in (0, 1)], -1).float()[None].expand(batch, -1, -1, -1)
    )
    region, here = cut(wrapped, 0.0), cut(seen[..., None].float(), 0.0)[..., 0] > 0
    tokens = cut(x, 0.0)
    bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
    q, k, v = F.linear(tokens, attention.qkv.weight, bias).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    scale = attention.logit_scale.clamp(max=math.log(100)).exp()
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * scale
    spots = torch.stack(torch.meshgrid(torch.arange(window[0]), torch.arange(window[1]), indexing="ij"), -1).view(-1, 2)
    distance = (spots[:, None] - spots[None]).float() / (torch.tensor(pretrained) - 1).clamp(min=1) * 8
    distance = distance.sign() * (distance.abs() + 1).log2() / 3
    scores = scores + (16 * attention.cpb_mlp(distance).sigmoid()).permute(2, 0, 1)
    apart = (region[:, :, None] != region[:, None]).any(-1) | ~here[:, None, :]
    scores = scores.masked_fill(apart[:, None], -math.inf).softmax(-1).nan_to_num()
    out = attention.proj((scores @ v).transpose(1, 2).flatten(2))
    high, wide = (rows + padding[0]) // window[0], (cols + padding[1]) // window[1]
    out = out.view(batch, high, wide, window[0], window[1], width).permute(0, 1, 3, 2, 4, 5)
    out = out.reshape(batch, rows + padding[0], cols + padding[1], width)[:, :rows, :cols]
    return torch.roll(out, tuple(shift), (1, 2))


def of_units(maps, units, side, image):
    """Final tokens of the units, in Z-order within each."""
    wide, cols = side // 32, image[1] // side
    inner = z_order(wide)
    sample = torch.arange(len(units))[:, None]
    found = [maps[sample, units // cols * wide + row, units % cols * wide + col] for row, col in inner]
    return torch.stack(found, 2).flatten(1, 2)


CASES = [
    ((96, 128), 6, 32, 5),
    ((128, 128), 8, 32, 6),
    ((128, 64), 12, 64, 1),
    ((192, 192), 12, 32, 14),
    ((224, 224), 7, 32, 20),  # odd shifts cut cells to single tokens
    ((96, 96), 7, 32, 4),  # the same with windows that overhang
]


@pytest.mark.parametrize(("image", "window", "side", "kept"), CASES)
@pytest.mark.parametrize("fused", [True, False])
def test_visible_units_equal_the_dense_encoder_without_hidden_keys(image, window, side, kept, fused):
    encoder = made(image, window)
    encoder.set_optimisations(set(encoder.OPTIMISATIONS) - {"triton_attention"} if fused else ())
    images, units = torch.randn(2, 3, *image), some_units(image, side, kept)
    found = encode_units(encoder, images, units, side=side)
    expected = of_units(dense_without_hidden_keys(encoder, images, units, side), units, side, image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


def test_gradients_equal_those_of_the_dense_encoder_without_hidden_keys():
    image, side = (96, 128), 32
    encoder = made(image, 6)
    images, units = torch.randn(2, 3, *image), some_units(image, side, 5)
    results = []
    for way in ("sparse", "dense"):
        encoder.zero_grad()
        if way == "sparse":
            out = encode_units(encoder, images, units, side=side)
        else:
            out = of_units(dense_without_hidden_keys(encoder, images, units, side), units, side, image)
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        results.append([parameter.grad.clone() for parameter in encoder.parameters()])
    for fast, slow in zip(*results, strict=True):
        scale = slow.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(fast / scale, slow / scale, rtol=0, atol=5e-5)


@pytest.mark.parametrize(("image", "window"), [((128, 128), 8), ((192, 192), 12)])
def test_with_all_units_visible_it_is_the_dense_encoder(image, window):
    encoder = made(image, window)
    images = torch.randn(2, 3, *image)
    units = torch.arange((image[0] // 32) * (image[1] // 32)).expand(2, -1)
    found = encode_units(encoder, images, units, side=32)
    with torch.no_grad():
        expected = encoder.encode(encoder.embed(images), encoder.grid(*image))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kept", [1, 4, 11])
def test_a_sample_is_alone_and_hidden_pixels_are_not_read(kept):
    image = (96, 128)
    encoder = made(image, 6)
    images, units = torch.randn(3, 3, *image), some_units(image, 32, kept, 3)
    seen = seen_map(units, image, 32, 1)[:, None]
    with torch.no_grad():
        found = encode_units(encoder, images, units, side=32)
        other = encode_units(encoder, torch.where(seen, images, torch.full_like(images, math.nan)), units, side=32)
        alone = encode_units(encoder, images[1:2], units[1:2], side=32)
    assert torch.equal(found, other)
    torch.testing.assert_close(found[1:2], alone, rtol=1e-4, atol=1e-5)


def test_activation_checkpointing_gives_the_same_gradients():
    image = (96, 128)
    encoder = made(image, 6)
    images, units = torch.randn(2, 3, *image), some_units(image, 32, 5)
    results = []
    for forgets in (False, True):
        encoder.checkpoint_blocks = forgets
        encoder.zero_grad()
        encode_units(encoder, images, units, side=32).square().sum().backward()
        results.append([parameter.grad.clone() for parameter in encoder.parameters()])
    for kept, forgotten in zip(*results, strict=True):
        torch.testing.assert_close(kept, forgotten)


def test_bfloat16_stays_near_float32():
    encoder = made((96, 128), 6)
    images, units = torch.randn(2, 3, 96, 128), some_units((96, 128), 32, 5)
    with torch.no_grad():
        wide = encode_units(encoder, images, units, side=32)
        with torch.autocast("cpu", torch.bfloat16):
            narrow = encode_units(encoder, images, units, side=32)
    assert (narrow.float() - wide).norm() / wide.norm() < 0.05


@pytest.mark.parametrize("side", [2, 4, 8])
def test_z_order_puts_every_group_of_a_merging_in_a_row(side):
    places = z_order(side)
    assert sorted(places) == [(row, col) for row in range(side) for col in range(side)]
    for first in range(0, side * side, 4):
        top, left = places[first]
        assert places[first : first + 4] == [(top, left), (top + 1, left), (top, left + 1), (top + 1, left + 1)]
        assert (top // 2, left // 2) == z_order(side // 2)[first // 4]


def test_units_that_do_not_fit_are_refused():
    encoder, images = made(), torch.zeros(1, 3, 96, 128)
    units = torch.zeros(1, 1, dtype=torch.int64)
    for side in (16, 48, 96):
        with pytest.raises(ConfigError, match="power of two; give 32"):
            encode_units(encoder, images, units, side=side)
    with pytest.raises(TokenCountError, match="have to tile it"):
        encode_units(encoder, images, units, side=64)
    with pytest.raises(TokenCountError, match="one at least is visible"):
        encode_units(encoder, images, units[:, :0], side=32)
    with pytest.raises(ImageSizeError):
        encode_units(encoder, images[..., :100], units, side=32)


def test_the_encoder_itself_is_as_it_was():
    encoder = made()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encode_units(encoder, torch.randn(1, 3, 96, 128), some_units((96, 128), 32, 3, 1), side=32)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert replace(encoder.config) == encoder.config
