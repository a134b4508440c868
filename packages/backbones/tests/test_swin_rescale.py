"""SwinV2's position bias by the paper's formula, at windows other than those of pre-training and not square.

With queries and keys of zero, cosine attention leaves the bias alone: a block is then ``x + norm(softmax(bias) x)``,
which is computed here from the formula (arXiv 2111.09883, section 3.3) and the weights.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from unveil_backbones import SwinConfig, SwinEncoder, rebuild

HEADS = 2
CONFIG = SwinConfig(
    image_size=(32, 32),
    width=16,
    depths=(1, 1, 1, 1),
    num_heads=(HEADS, 2, 2, 2),
    window_sizes=(12, 12, 12, 12),
    pretrained_window_sizes=((6, 8), (4, 4), (2, 2), (1, 1)),
)


def only_bias(encoder: SwinEncoder) -> SwinEncoder:
    """A first block whose attention mixes tokens by their bias, and whose MLP adds nothing."""
    block = encoder.layers[0].blocks[0]
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if "cpb_mlp" in name:
                parameter.normal_(std=0.3)
            elif name.startswith("attn"):
                parameter.zero_()
        block.attn.qkv.weight[2 * CONFIG.width :] = torch.eye(CONFIG.width)
        block.attn.proj.weight.copy_(torch.eye(CONFIG.width))
        block.norm1.weight.fill_(1.0)
        block.norm2.weight.zero_()
        block.norm2.bias.zero_()
    return encoder.eval()


def bias_by_formula(network: nn.Module, window: tuple[int, int], pretrained: tuple[int, int]) -> Tensor:
    """``16 sigmoid(G(dy, dx))`` for all pairs of a window, ``[heads, n, n]``; distances on a logarithmic scale."""
    cells = [(row, col) for row in range(window[0]) for col in range(window[1])]
    pairs = torch.zeros(len(cells), len(cells), 2)
    for i, one in enumerate(cells):
        for j, other in enumerate(cells):
            for axis in range(2):
                distance = 8 * (one[axis] - other[axis]) / (pretrained[axis] - 1)
                pairs[i, j, axis] = math.copysign(math.log2(abs(distance) + 1) / math.log2(8), distance)
    return (16 * torch.sigmoid(network(pairs))).permute(2, 0, 1)


def expected_block(
    encoder: SwinEncoder, tokens: Tensor, window: tuple[int, int], pretrained: tuple[int, int]
) -> Tensor:
    block = encoder.layers[0].blocks[0]
    weight = bias_by_formula(block.attn.cpb_mlp, window, pretrained).softmax(dim=-1)
    heads = tokens.unflatten(2, (HEADS, -1)).transpose(1, 2)
    mixed = (weight @ heads).transpose(1, 2).flatten(2)
    return tokens + block.norm1(mixed)


# One window covers the grid of the image: as large as in pre-training along one axis and larger along the other.
@pytest.mark.parametrize(("size", "window"), [((32, 32), (8, 8)), ((32, 64), (8, 12)), ((64, 32), (12, 8))])
def test_the_bias_is_the_formulas_at_every_window(size, window):
    encoder = only_bias(SwinEncoder(CONFIG))
    images = torch.randn(1, 3, *size)
    rows, cols = size[0] // 4, size[1] // 4
    with torch.no_grad():
        tokens = encoder.embed(images)
        found = encoder.intermediates(images, ["layers.0.blocks.0"])["layers.0.blocks.0"]
        whole = tokens.unflatten(1, (rows, cols))[
            :, : window[0], : window[1]
        ]  # the first window, where it is one of several
        expected = expected_block(encoder, whole.flatten(1, 2), window, CONFIG.pretrained_window_sizes[0])
    torch.testing.assert_close(found[:, : window[0], : window[1]].flatten(1, 2), expected, atol=1e-5, rtol=0)


def test_another_pre_training_window_would_give_another_bias():
    """The test above can fail."""
    encoder = only_bias(SwinEncoder(CONFIG))
    network = encoder.layers[0].blocks[0].attn.cpb_mlp
    one, other = (bias_by_formula(network, (8, 12), pretrained) for pretrained in ((6, 8), (8, 12)))
    assert (one - other).abs().max() > 0.05


def test_a_larger_window_keeps_the_bias_of_the_same_distance():
    encoder = only_bias(SwinEncoder(CONFIG))
    larger = rebuild(encoder, replace(CONFIG, image_size=(64, 96), window_sizes=(16, 16, 16, 16))).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found = larger.intermediates(images, ["layers.0.blocks.0"])["layers.0.blocks.0"]
        tokens = larger.embed(images)
        expected = expected_block(larger, tokens, (16, 16), CONFIG.pretrained_window_sizes[0])
    torch.testing.assert_close(found.flatten(1, 2), expected, atol=1e-5, rtol=0)
