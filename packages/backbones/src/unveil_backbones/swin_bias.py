"""The continuous position bias of Swin V2 (arXiv 2111.09883, section 3.2): a small network of a distance, per block.

Shapes: ``l`` blocks, ``s`` distances within a window, ``t`` tokens of a window, ``h`` heads.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from unveil_backbones.swin_windows import BiasGeometry

__all__ = ["bias_of_pairs", "position_bias", "position_tables"]

_HIGHEST = 16.0
"""A bias is between 0 and this."""


def position_bias(cpb_mlp: nn.Sequential, geometry: BiasGeometry, num_heads: int) -> Float[Tensor, "h t t"]:
    """Bias of one block: ``16 sigmoid(MLP(log-spaced distance))``, in the order of operations of the paper's code."""
    first = cast(nn.Linear, cpb_mlp[0])
    table = cpb_mlp(geometry.coordinates.to(first.weight.dtype))
    side = math.isqrt(len(geometry.index))
    pairs = table[geometry.index].view(side, side, num_heads)
    return _HIGHEST * torch.sigmoid(pairs.permute(2, 0, 1).contiguous())


def position_tables(networks: Sequence[nn.Sequential], geometry: BiasGeometry) -> Float[Tensor, "l h s"]:
    """Biases of all distances for all blocks of a stage; ``bias_of_pairs`` of each equals its ``position_bias``.

    The sigmoid is taken of distances, not of pairs, and the small matrices stay in the precision of the weights under
    autocast. On a CPU the networks run one after the other, each small enough for the cache, and run again in the
    backward pass; elsewhere they are one batch.
    """
    first = [cast(nn.Linear, network[0]) for network in networks]
    second = [cast(nn.Linear, network[2]) for network in networks]
    weights = [layer.weight for layer in first], [layer.bias for layer in first], [layer.weight for layer in second]
    coordinates = geometry.coordinates.to(weights[0][0].dtype)
    with torch.autocast(geometry.index.device.type, enabled=False):
        if coordinates.device.type == "cpu" and not torch.compiler.is_compiling():
            return cast(Tensor, _PositionTables.apply(coordinates, *weights[0], *weights[1], *weights[2]))
        weight, offset, heads = (torch.stack([*part]) for part in weights)
        hidden = torch.baddbmm(
            offset[:, None], coordinates.expand(len(networks), -1, -1), weight.transpose(1, 2)
        ).relu()
        return _HIGHEST * torch.sigmoid(torch.bmm(heads, hidden.transpose(1, 2)))


def bias_of_pairs(table: Float[Tensor, "h s"], geometry: BiasGeometry) -> Float[Tensor, "h t t"]:
    """Read the bias of every pair of tokens from the table of distances."""
    side = math.isqrt(len(geometry.index))
    return table.index_select(1, geometry.index).unflatten(1, (side, side))


class _PositionTables(torch.autograd.Function):
    """Keeps weights and tables only; what is between them, 512 values per distance and block, is computed twice."""

    @staticmethod
    def forward(ctx: Any, coordinates: Tensor, *weights: Tensor) -> Tensor:
        blocks = len(weights) // 3
        first, offsets, second = weights[:blocks], weights[blocks : 2 * blocks], weights[2 * blocks :]
        tables = coordinates.new_empty(blocks, second[0].shape[0], coordinates.shape[0])
        for table, weight, offset, head in zip(tables, first, offsets, second, strict=True):
            hidden = torch.addmm(offset, coordinates, weight.t()).relu_()
            torch.mm(head, hidden.t(), out=table)
        tables.sigmoid_().mul_(_HIGHEST)
        ctx.save_for_backward(coordinates, tables, *weights)
        return tables

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the first name
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        coordinates, tables, *weights = ctx.saved_tensors
        blocks = len(weights) // 3
        # d 16 sigmoid(x) / dx = y (1 - y / 16)
        slopes = gradients[0] * tables * (1 - tables / _HIGHEST)
        parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for index, slope in enumerate(slopes):
            weight, offset, head = weights[index::blocks]
            hidden = torch.addmm(offset, coordinates, weight.t()).relu_()
            inner = torch.mm(slope.t(), head)
            inner = torch.ops.aten.threshold_backward(inner, hidden, 0)
            parts[0].append(torch.mm(inner.t(), coordinates))
            parts[1].append(inner.sum(0))
            parts[2].append(torch.mm(slope, hidden))
        return None, *parts[0], *parts[1], *parts[2]
