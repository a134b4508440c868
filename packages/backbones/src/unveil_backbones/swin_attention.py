"""Scaled cosine attention within windows with a continuous position bias (Swin V2, arXiv 2111.09883, section 3.2).

Several ways to the same values; ``choose`` takes one. Shapes: ``w`` windows of all images, ``g`` windows of one image,
``t`` tokens of a window, ``h`` heads, ``d`` width of a head, ``n`` tokens.
"""

import math
from collections.abc import Collection
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int8, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from unveil_backbones.swin_windows import Reorder

__all__ = ["Kind", "attend_rows", "choose", "cosine_attention", "reorder"]

Kind = Literal["plain", "folded", "fused", "sdpa", "triton"]
"""The paper's order of operations; the scale folded into the queries; that with our own gradient (CPU); PyTorch's fused
attention; our own kernel (GPU).
"""

_MAX_SCALE = 100.0
"""Upper bound of the learned inverse temperature."""
_HIDDEN = -100.0
"""Added to the score of two tokens that do not see each other, as in the reference: not minus infinity."""
_SMALLEST_NORM = 1e-12


def choose(optimisations: Collection[str], device: torch.device) -> Kind:
    """Return the way that these optimisations of an encoder (``SwinEncoder.OPTIMISATIONS``) stand for on this device.

    On a CPU under ``torch.compile`` it is "folded" in place of "fused": the compiler fuses operations itself.
    """
    if device.type == "cuda" and "triton_attention" in optimisations:
        return "triton"
    if device.type == "cuda" and "sdpa_attention" in optimisations:
        return "sdpa"
    if "fused_attention" not in optimisations:
        return "plain"
    return "fused" if device.type == "cpu" and not torch.compiler.is_compiling() else "folded"


def cosine_attention(
    qkv: Float[Tensor, "w t 3 h d"],
    logit_scale: Float[Tensor, "h 1 1"],
    bias: Float[Tensor, "*w h t t"],
    regions: Int8[Tensor, "g t"] | None,
    *,
    kind: Kind,
) -> Float[Tensor, "w t c"]:
    """Softmax over scaled cosines plus bias, times the values; heads are joined to ``c = h * d``.

    Args:
        qkv: Queries, keys and values, the windows of an image one after the other.
        logit_scale: Logarithm of the inverse temperature, clamped at 100.
        bias: Position bias of each pair of tokens; one for all windows, or one for each, with ``-inf`` for keys that do
            not count.
        regions: Tokens see each other only where these are equal; ``None`` for all, and where each window has a bias.
        kind: The way to compute it, from ``choose``; not "triton" or "sdpa" where each window has a bias.

    Raises:
        ModuleNotFoundError: ``kind`` is "triton", which is not installed.
    """
    scale = logit_scale.clamp(max=math.log(_MAX_SCALE)).exp()
    if kind == "fused":
        return cast(Tensor, _CosineAttention.apply(qkv, scale, bias, regions))
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    q, k, whole = F.normalize(q, dim=-1), F.normalize(k, dim=-1), _whole_bias(bias, regions)
    if kind == "triton":
        from unveil_backbones.swin_triton import biased_attention  # Triton comes with PyTorch for CUDA only

        return biased_attention((q * scale).to(v.dtype), k.to(v.dtype), v, bias, regions).transpose(1, 2).flatten(2)
    if kind == "sdpa":
        return _sdpa((q * scale).to(v.dtype), k.to(v.dtype), v, whole.to(v.dtype)).transpose(1, 2).flatten(2)
    scores = q @ k.transpose(-2, -1) * scale if kind == "plain" else (q * scale) @ k.transpose(-2, -1)
    scores = scores.unflatten(0, (-1, len(whole))) + whole
    attended = scores.flatten(0, 1).softmax(dim=-1) @ v
    return attended.transpose(1, 2).flatten(2)


def _sdpa(
    q: Float[Tensor, "w h t d"],
    k: Float[Tensor, "w h t d"],
    v: Float[Tensor, "w h t d"],
    bias: Float[Tensor, "g h t t"],
) -> Float[Tensor, "w h t d"]:
    """PyTorch's fused attention. The windows of an image count as heads, so that images share one mask, uncopied."""
    groups, heads = bias.shape[:2]
    q, k, v = (part.unflatten(0, (-1, groups)).flatten(1, 2) for part in (q, k, v))
    mask = bias.flatten(0, 1).expand(len(q), -1, -1, -1)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    return attended.unflatten(1, (groups, heads)).flatten(0, 1)


def attend_rows(
    query: Float[Tensor, "b r h d"],
    key_value: Float[Tensor, "b t 2 h d"],
    logit_scale: Float[Tensor, "h 1 1"],
    bias: Float[Tensor, "h t t"],
    rows: Int64[Tensor, "b r"],
) -> Float[Tensor, "b r c"]:
    """``cosine_attention`` of some tokens, for one window per image.

    Args:
        query: Queries of the asking tokens.
        key_value: Keys and values of all tokens.
        logit_scale: As for ``cosine_attention``.
        bias: As for ``cosine_attention``.
        rows: Place of each asking token in the window.
    """
    scale = logit_scale.clamp(max=math.log(_MAX_SCALE)).exp()
    key, value = key_value.permute(2, 0, 3, 1, 4).unbind(0)
    scores = (F.normalize(query, dim=-1).transpose(1, 2) * scale) @ F.normalize(key, dim=-1).transpose(-2, -1)
    scores = scores + bias.transpose(0, 1)[rows].transpose(1, 2)
    return (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)


def reorder(tokens: Float[Tensor, "b n c"], order: Reorder | None) -> Float[Tensor, "b n c"]:
    """Gather the tokens in another order; the gradient is a gather too, where autograd would scatter and add."""
    if order is None:
        return tokens
    return cast(Tensor, _Permute.apply(tokens, order.index, order.inverse))


def _whole_bias(bias: Tensor, regions: Tensor | None) -> Tensor:
    """Position bias with the regions' mask: [1 or g, h, t, t]; that of each window as it is."""
    if bias.ndim == 4:
        return bias
    if regions is None:
        return bias[None]
    apart = regions[:, :, None] != regions[:, None, :]
    return bias + apart[:, None] * _HIDDEN


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return tokens.index_select(1, index)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the first name
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors
        return gradients[0].index_select(1, inverse), None, None


class _CosineAttention(torch.autograd.Function):
    """Cosine attention that saves normalised queries and keys, values, probabilities and norms, nothing else.

    The temperature is folded into the queries, the bias is what the product of queries and keys is added to, and
    gradients of queries, keys and values are written into one tensor, so that none of them is copied twice.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, scale: Tensor, bias: Tensor, regions: Tensor | None) -> Tensor:
        windows, tokens, _, heads, width = qkv.shape
        with torch.autocast("cpu", enabled=False):
            norm = torch.linalg.vector_norm(qkv[:, :, :2], dim=-1, keepdim=True, dtype=scale.dtype)
            # [2, w, h, t, 1]: one over the norm, for queries times the scale
            factor = norm.clamp_min_(_SMALLEST_NORM).reciprocal_().permute(2, 0, 3, 1, 4).contiguous()
            factor[0] *= scale
            parts = qkv.new_empty(3, windows, heads, tokens, width)
            by_head = qkv.permute(2, 0, 3, 1, 4)
            torch.mul(by_head[:2], factor.to(qkv.dtype), out=parts[:2])
            parts[2] = by_head[2]
            q, k, v = parts.flatten(1, 2).unbind(0)
            whole = _whole_bias(bias, regions)
            scores = qkv.new_empty(windows * heads, tokens, tokens)
            scores.view(-1, *whole.shape).copy_(whole)
            probabilities = torch.softmax(scores.baddbmm_(q, k.transpose(1, 2)), dim=-1)
            attended = torch.bmm(probabilities, v).view(windows, heads, tokens, width)
        ctx.save_for_backward(parts, factor, probabilities, scale)
        ctx.bias_dtype, ctx.bias_shared = bias.dtype, bias.ndim == 3
        return attended.transpose(1, 2).reshape(windows, tokens, heads * width)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the first name
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        parts, factor, probabilities, scale = ctx.saved_tensors
        _, windows, heads, tokens, width = parts.shape
        with torch.autocast("cpu", enabled=False):
            q, k, v = parts.flatten(1, 2).unbind(0)
            attended = gradients[0].reshape(windows, tokens, heads, width).transpose(1, 2).reshape(-1, tokens, width)
            result = parts.new_empty(windows, tokens, 3, heads, width)
            by_head = result.permute(2, 0, 3, 1, 4)
            by_head[2] = torch.bmm(probabilities.transpose(1, 2), attended).view_as(parts[2])
            scores = torch.bmm(attended, v.transpose(1, 2))
            scores = torch.ops.aten._softmax_backward_data(scores, probabilities, -1, probabilities.dtype)
            bias = scores.view(windows, heads, tokens, tokens)
            bias = bias.sum(0, dtype=ctx.bias_dtype) if ctx.bias_shared else bias.to(ctx.bias_dtype)
            inner = torch.empty_like(parts[:2])
            torch.bmm(scores, k, out=inner[0].flatten(0, 1))
            torch.bmm(scores.transpose(1, 2), q, out=inner[1].flatten(0, 1))
            # A direction only moves across itself: with u = s x / |x|, dx = (s / |x|) (du - u (u . du) / s^2).
            along = (inner * parts[:2]).sum(-1, keepdim=True, dtype=scale.dtype)
            scale_gradient = along[0].sum((0, 2)).view_as(scale) / scale
            along[0] /= scale.square()
            torch.mul(
                inner.addcmul_(parts[:2], along.to(parts.dtype), value=-1), factor.to(parts.dtype), out=by_head[:2]
            )
        return result, scale_gradient, bias, None
