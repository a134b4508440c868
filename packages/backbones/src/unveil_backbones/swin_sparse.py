"""A Swin Transformer V2 of which only visible units are computed: what sparse SimMIM trains.

Definition. Every visible token attends to the visible tokens of its window, and of its own region where the window is
shifted; all else in a block treats tokens one by one. Hidden tokens do not exist: nothing is computed for them, windows
without visible tokens included. So this is the dense encoder whose attention leaves hidden keys out, except that the
regions of a shifted window never see each other, where the dense encoder lowers their scores by 100; and that windows
which overhang the grid are not filled up with empty tokens. With all units visible both encoders agree.

As final tokens are 32 pixels wide, a unit is a square of one or of 4, 16 ... of them.

Shapes: ``b`` images, ``c h w`` pixels, ``k`` visible units, ``n`` visible tokens, ``d`` and ``e`` widths.
"""

from functools import lru_cache, partial
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from unveil_backbones.errors import ConfigError, TokenCountError
from unveil_backbones.swin import SwinEncoder
from unveil_backbones.swin_attention import Kind, choose, cosine_attention
from unveil_backbones.swin_blocks import SwinAttention, SwinBlock, SwinMerging, SwinStage
from unveil_backbones.swin_config import SwinConfig
from unveil_backbones.swin_packing import Segments, StageCells, pack_segments, stage_cells, z_order
from unveil_backbones.swin_windows import make_plan

__all__ = ["encode_units"]


def encode_units(
    encoder: SwinEncoder, images: Float[Tensor, "b c h w"], units: Int64[Tensor, "b k"], *, side: int
) -> Float[Tensor, "b m e"]:
    """Embed and encode visible units alone, and apply the final norm.

    Args:
        encoder: A SwinV2.
        images: Whole images; the pixels of hidden units are not read.
        units: Raster indices of the visible units of each image, all different; as many in every image.
        side: Side of a unit in pixels: the encoder's stride (32), or that times a power of two.

    Returns:
        The final tokens of the units in the order of ``units``: one each if ``side`` is the stride, else ``(side /
        stride) ** 2`` in Z-order, columns first.

    Raises:
        ConfigError: ``side`` is no such number.
        ImageSizeError: A side of the image is not a multiple of 32.
        TokenCountError: The units do not tile the image, or there are none.
    """
    grid = encoder.grid(images.shape[-2], images.shape[-1])
    _check(encoder, grid, units, side)
    stages = _stages(encoder.config, grid, side, images.device)
    tokens = _embed(encoder, images, units, side)
    on_host = units.cpu()  # here a GPU is waited for, once
    for stage, kinds in zip(encoder.layers, stages, strict=True):
        packed = [pack_segments(cells, on_host, images.device) for cells in kinds]
        tokens = _run_stage(encoder, cast(SwinStage, stage), tokens, packed)
    return encoder.norm(tokens)


def _check(encoder: SwinEncoder, grid: tuple[int, int], units: Tensor, side: int) -> None:
    times = side // encoder.stride
    if side % encoder.stride or times < 1 or times & (times - 1):
        raise ConfigError(
            f"units of {side} pixels; a unit of {encoder.spec.name} is {encoder.stride} pixels wide, or that times a "
            f"power of two; give {encoder.stride}"
        )
    wide = side // encoder.patch_size
    if grid[0] % wide or grid[1] % wide or units.shape[1] < 1:
        raise TokenCountError(
            f"{units.shape[1]} units of {side} pixels on an image of {grid[0] * encoder.patch_size} x "
            f"{grid[1] * encoder.patch_size}; units have to tile it, and one at least is visible; change unit or image"
        )


@lru_cache(maxsize=32)
def _stages(config: SwinConfig, grid: tuple[int, int], side: int, device: torch.device) -> tuple[list[StageCells], ...]:
    """Cells of each stage, for even and, where they shift, for odd blocks; a function of the sizes alone."""
    plans = make_plan(
        grid,
        config.window_sizes,
        config.pretrained_window_sizes,
        config.depths,
        window_order=False,
        merge_gather=False,
        device=torch.device("cpu"),
    )
    made = []
    for stage, plan in enumerate(plans):
        window, unit = config.window_sizes[stage], side // config.patch_size >> stage
        odds = range(min(2, config.depths[stage]) if max(plan.grid) > window else 1)
        made.append([stage_cells(plan, odd, window=window, unit=unit, device=device) for odd in odds])
    return tuple(made)


def _embed(encoder: SwinEncoder, images: Tensor, units: Tensor, side: int) -> Float[Tensor, "b n d"]:
    """Tokens of visible units, unit by unit, in Z-order."""
    patch = encoder.patch_size
    wide, cols = side // patch, images.shape[-1] // side
    squares = images.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5)
    sample = torch.arange(len(images), device=images.device)[:, None]
    pixels = squares[sample, units // cols, units % cols]
    patches = pixels.unflatten(4, (wide, patch)).unflatten(3, (wide, patch)).permute(0, 1, 3, 5, 2, 4, 6)
    order = torch.tensor([row * wide + col for row, col in z_order(wide)], device=images.device)
    patches = patches.flatten(2, 3).flatten(3).index_select(2, order).flatten(1, 2)
    projection = cast(nn.Conv2d, encoder.patch_embed.proj)
    return encoder.patch_embed.norm(F.linear(patches, projection.weight.flatten(1), projection.bias))


def _run_stage(encoder: SwinEncoder, stage: SwinStage, tokens: Tensor, packed: list[Segments]) -> Tensor:
    if isinstance(stage.downsample, SwinMerging):
        merging = stage.downsample
        tokens = merging.norm(merging.reduction(tokens.unflatten(1, (-1, 4)).flatten(2)))
    kind = choose(encoder.optimisations, tokens.device)
    # The kernels of our own and PyTorch's fused one take one bias for all windows.
    kind = kind if kind in ("plain", "fused") else "folded"
    tables = stage.tables(packed[0].cells.plan.geometry)
    each = (None,) * len(stage.blocks) if tables is None else tables.unbind(0)
    for index, (block, table) in enumerate(zip(stage.blocks, each, strict=True)):
        segments = packed[index % len(packed)]
        tokens = encoder._run(partial(_run_block, cast(SwinBlock, block), segments=segments, kind=kind), tokens, table)
    return tokens


def _run_block(block: SwinBlock, tokens: Tensor, table: Tensor | None, *, segments: Segments, kind: Kind) -> Tensor:
    attended = _attend(block.attn, tokens, table, segments, kind)
    tokens = tokens + block.drop_path1(block.norm1(attended))
    return tokens + block.drop_path2(block.norm2(block.mlp(tokens)))


def _attend(
    attention: SwinAttention, tokens: Float[Tensor, "b n d"], table: Tensor | None, segments: Segments, kind: Kind
) -> Float[Tensor, "b n d"]:
    heads, inner = attention.num_heads, segments.tokens
    bias = attention.bias(table, segments.cells.plan)
    by_pair = bias.view(heads, -1, inner * inner).transpose(0, 1).flatten(1)
    cells = attention.project(tokens).view(-1, inner * 3 * tokens.shape[2])
    if segments.index is not None:
        cells = cast(Tensor, _Rows.apply(cells, segments.index, segments.inverse, False))
    parts = []
    for group in segments.groups:
        qkv = cells[group.rows].view(-1, group.size * inner, 3, heads, tokens.shape[2] // heads)
        of_group = by_pair.index_select(0, group.pairs).view(len(qkv), group.size, group.size, heads, inner, inner)
        of_group = of_group.permute(0, 3, 1, 4, 2, 5).reshape(len(qkv), heads, qkv.shape[1], qkv.shape[1])
        if group.empty is not None:
            of_group = of_group.masked_fill(group.empty, float("-inf"))
        attended = cosine_attention(qkv, attention.logit_scale, of_group, None, kind=kind)
        parts.append(attended.view(-1, inner * tokens.shape[2]))
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    if segments.index is not None:
        joined = cast(Tensor, _Rows.apply(joined, segments.inverse, segments.padded, True))
    return attention.proj(joined.view(tokens.shape))


class _Rows(torch.autograd.Function):
    """Gather of rows whose gradient is a gather too: every row that counts is taken once.

    Filling rows come from anywhere: their keys are masked and their results dropped, so that their gradient is zero.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, back: Tensor, filled: bool) -> Tensor:
        ctx.save_for_backward(back)
        ctx.filled = filled
        return rows.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the first name
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        (back,) = ctx.saved_tensors
        (gradient,) = gradients
        if ctx.filled:
            gradient = F.pad(gradient, (0, 0, 0, 1))
        return gradient.index_select(0, back), None, None, None
