"""Window attention with a learned bias as Triton kernels that never store scores: less memory, and slow so far.

Forward, a program takes some rows of one window and head. Backward, the kernel of rows runs through many windows one
after the other, so that the gradient of the bias, which all windows share, adds up in registers; the kernel of columns
gives the gradients of keys and values. Both compute probabilities again, from the logarithm of each row's sum.

Shapes: ``w`` windows, ``g`` windows of one image, ``h`` heads, ``t`` tokens of a window, ``d`` width of a head.
"""
# ruff: noqa: ANN001, ANN202

from typing import Any, cast

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from jaxtyping import Float, Int8
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["biased_attention"]

_ROWS = 32
"""Rows, or columns, of one program."""
_SLICES = 8
"""Programs that share the windows of one head and tile in the backward pass."""


def biased_attention(
    query: Float[Tensor, "w h t d"],
    key: Float[Tensor, "w h t d"],
    value: Float[Tensor, "w h t d"],
    bias: Float[Tensor, "h t t"],
    regions: Int8[Tensor, "g t"] | None,
) -> Float[Tensor, "w h t d"]:
    """``softmax(query key^T + bias) value``; 100 less between tokens of different regions.

    Args:
        query: Queries, scaled; ``d`` is a power of two from 16 on.
        key: Keys, of the same precision as queries and values.
        value: Values.
        bias: Added to the scores of all windows.
        regions: Of the windows of an image; ``None`` for one region.
    """
    return cast(Tensor, _BiasedAttention.apply(query, key, value, bias, regions))


@triton.jit
def _tile(pointer, rows, tokens, width: tl.constexpr):
    """Rows of one window and head, zeros beyond the last token."""
    columns = tl.arange(0, width)
    return tl.load(pointer + rows[:, None] * width + columns[None, :], mask=rows[:, None] < tokens, other=0.0)


@triton.jit
def _store(pointer, rows, tokens, values, width: tl.constexpr):
    columns = tl.arange(0, width)
    tl.store(pointer + rows[:, None] * width + columns[None, :], values, mask=rows[:, None] < tokens)


@triton.jit
def _scores(query, key, bias, regions, rows, columns, tokens, masked: tl.constexpr):
    """Biased scores in float32; minus infinity beyond the last key."""
    inside = (rows[:, None] < tokens) & (columns[None, :] < tokens)
    scores = tl.dot(query, tl.trans(key), input_precision="ieee")
    scores += tl.load(bias + rows[:, None] * tokens + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    if masked:
        of_row = tl.load(regions + rows, mask=rows < tokens, other=0)
        of_column = tl.load(regions + columns, mask=columns < tokens, other=0)
        scores += tl.where(of_row[:, None] != of_column[None, :], -100.0, 0.0)
    return tl.where(columns[None, :] < tokens, scores, float("-inf"))


@triton.jit
def _forward(
    query, key, value, bias, regions, out, log_sums, heads, tokens, groups,
    width: tl.constexpr, size: tl.constexpr, whole: tl.constexpr, masked: tl.constexpr,
):  # fmt: skip
    """Grid: windows, heads, tiles of rows."""
    window, head = tl.program_id(0), tl.program_id(1)
    place = window * heads + head
    rows, columns = tl.program_id(2) * size + tl.arange(0, size), tl.arange(0, whole)
    start = place * tokens * width
    asked, keys = _tile(query + start, rows, tokens, width), _tile(key + start, columns, tokens, width)
    scores = _scores(
        asked, keys, bias + head * tokens * tokens, regions + window % groups * tokens, rows, columns, tokens, masked
    )
    highest = tl.max(scores, 1)
    weights = tl.exp(scores - highest[:, None])
    sums = tl.sum(weights, 1)
    values = _tile(value + start, columns, tokens, width)
    mixed = tl.dot(weights.to(values.dtype), values, input_precision="ieee") / sums[:, None]
    _store(out + start, rows, tokens, mixed, width)
    tl.store(log_sums + place * tokens + rows, highest + tl.log(sums), mask=rows < tokens)


@triton.jit
def _backward_rows(
    query, key, value, bias, regions, log_sums, gradient, along, of_query, of_bias, windows, heads, tokens, groups,
    width: tl.constexpr, size: tl.constexpr, whole: tl.constexpr, masked: tl.constexpr, slices: tl.constexpr,
):  # fmt: skip
    """Gradients of queries and bias. Grid: heads, tiles of rows, slices of the windows."""
    head, part = tl.program_id(0), tl.program_id(2)
    rows, columns = tl.program_id(1) * size + tl.arange(0, size), tl.arange(0, whole)
    total = tl.zeros((size, whole), dtype=tl.float32)
    for window in range(part, windows, slices):
        place = window * heads + head
        start = place * tokens * width
        asked, keys = _tile(query + start, rows, tokens, width), _tile(key + start, columns, tokens, width)
        scores = _scores(
            asked, keys, bias + head * tokens * tokens, regions + window % groups * tokens, rows, columns, tokens,
            masked,
        )  # fmt: skip
        log_sum = tl.load(log_sums + place * tokens + rows, mask=rows < tokens, other=0.0)
        common = tl.load(along + place * tokens + rows, mask=rows < tokens, other=0.0)
        given = _tile(gradient + start, rows, tokens, width)
        values = _tile(value + start, columns, tokens, width)
        slope = tl.dot(given, tl.trans(values), input_precision="ieee") - common[:, None]
        slope = tl.exp(scores - log_sum[:, None]) * slope
        total += slope
        _store(of_query + start, rows, tokens, tl.dot(slope.to(keys.dtype), keys, input_precision="ieee"), width)
    inside = (rows[:, None] < tokens) & (columns[None, :] < tokens)
    of_bias += (part * heads + head) * tokens * tokens
    tl.store(of_bias + rows[:, None] * tokens + columns[None, :], total, mask=inside)


@triton.jit
def _backward_columns(
    query, key, value, bias, regions, log_sums, gradient, along, of_key, of_value, heads, tokens, groups,
    width: tl.constexpr, size: tl.constexpr, whole: tl.constexpr, masked: tl.constexpr,
):  # fmt: skip
    """Gradients of keys and values. Grid: windows, heads, tiles of columns."""
    window, head = tl.program_id(0), tl.program_id(1)
    place = window * heads + head
    rows, columns = tl.arange(0, whole), tl.program_id(2) * size + tl.arange(0, size)
    start = place * tokens * width
    asked, keys = _tile(query + start, rows, tokens, width), _tile(key + start, columns, tokens, width)
    scores = _scores(
        asked, keys, bias + head * tokens * tokens, regions + window % groups * tokens, rows, columns, tokens, masked
    )
    log_sum = tl.load(log_sums + place * tokens + rows, mask=rows < tokens, other=0.0)
    common = tl.load(along + place * tokens + rows, mask=rows < tokens, other=0.0)
    weights = tl.exp(scores - log_sum[:, None])
    given = _tile(gradient + start, rows, tokens, width)
    values = _tile(value + start, columns, tokens, width)
    slope = weights * (tl.dot(given, tl.trans(values), input_precision="ieee") - common[:, None])
    of_values = tl.dot(tl.trans(weights).to(given.dtype), given, input_precision="ieee")
    _store(of_value + start, columns, tokens, of_values, width)
    of_keys = tl.dot(tl.trans(slope).to(asked.dtype), asked, input_precision="ieee")
    _store(of_key + start, columns, tokens, of_keys, width)


class _BiasedAttention(torch.autograd.Function):
    """Saves inputs, outputs and one number per row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, regions: Tensor | None) -> Tensor:
        query, key, value, bias = query.contiguous(), key.contiguous(), value.contiguous(), bias.contiguous()
        windows, heads, tokens, width = query.shape
        out = torch.empty_like(query)
        log_sums = torch.empty(windows, heads, tokens, dtype=torch.float32, device=query.device)
        ctx.groups = 1 if regions is None else len(regions)
        ctx.sizes = {
            "width": width,
            "size": _ROWS,
            "whole": max(_ROWS, triton.next_power_of_2(tokens)),
            "masked": regions is not None,
        }
        # Without regions their argument is never read; the kernel still wants a pointer.
        places = torch.zeros(1, tokens, dtype=torch.int8, device=query.device) if regions is None else regions
        cast(Any, _forward)[(windows, heads, triton.cdiv(tokens, _ROWS))](
            query, key, value, bias, places, out, log_sums, heads, tokens, ctx.groups, **ctx.sizes
        )
        ctx.save_for_backward(query, key, value, bias, places, out, log_sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the first name
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        query, key, value, bias, places, out, log_sums = ctx.saved_tensors
        windows, heads, tokens, _ = query.shape
        gradient = gradients[0].contiguous()
        along = (gradient.float() * out.float()).sum(-1)
        slices, tiles = min(_SLICES, windows), triton.cdiv(tokens, _ROWS)
        of_query, of_key, of_value = (torch.empty_like(query) for _ in range(3))
        of_bias = torch.empty(slices, heads, tokens, tokens, dtype=torch.float32, device=query.device)
        common = (query, key, value, bias, places, log_sums, gradient, along)
        cast(Any, _backward_rows)[(heads, tiles, slices)](
            *common, of_query, of_bias, windows, heads, tokens, ctx.groups, **ctx.sizes, slices=slices
        )
        cast(Any, _backward_columns)[(windows, heads, tiles)](
            *common, of_key, of_value, heads, tokens, ctx.groups, **ctx.sizes
        )
        return of_query, of_key, of_value, of_bias.sum(0).to(bias.dtype), None
