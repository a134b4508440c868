"""Attention and blocks of a Vision Transformer that compute the same as timm's with less traffic.

``VitAttention`` is timm's module with another inside: on a CPU and for the few tokens that masking leaves, two plain
batched products beat the fused kernel, which is made for long sequences. ``VitBlock`` can be wanted for a part of its
tokens only: keys and values of all, everything else of those.

Shapes: ``b`` images, ``n`` tokens, ``r`` wanted tokens, ``h`` heads, ``f`` channels of a head, ``d = h f``.
"""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear, scaled_dot_product_attention

from unveil_backbones._timm import Attention, Block

__all__ = ["MOST_EXPLICIT_TOKENS", "VitAttention", "VitBlock", "attend"]

MOST_EXPLICIT_TOKENS = 256
"""Up to this many tokens the explicit products are used on a CPU; their n^2 scores grow beyond the caches after it."""


class VitAttention(Attention):
    """timm's attention (same parameters, names and results) with the explicit products where they are faster.

    Attributes:
        explicit: Whether to use them; off, timm's own forward runs.
    """

    explicit: bool = True

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return the attended tokens; masks are timm's business."""
        if not self.explicit or attn_mask is not None or is_causal or not self._is_plain():
            return super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
        packed = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim))
        return self.proj(attend(None, packed, explicit=True))

    def _is_plain(self) -> bool:
        """Whether there is nothing between the projections but the attention itself."""
        extras = (self.q_norm, self.k_norm, self.norm)
        return self.gate is None and all(isinstance(extra, nn.Identity) for extra in extras)


def attend(
    query: Float[Tensor, "b r h f"] | None, packed: Float[Tensor, "b n s h f"], *, explicit: bool
) -> Float[Tensor, "b r d"]:
    """Softmax attention with scale ``f ** -0.5``.

    Args:
        query: The queries, if ``packed`` holds keys and values only; else ``None`` and all tokens ask.
        packed: ``[query,] key, value`` along the third axis, as a joint projection gives them.
        explicit: Whether the explicit products may be used (CPU, few tokens, no compiler); else PyTorch's kernel.
    """
    few = packed.shape[1] <= MOST_EXPLICIT_TOKENS
    if explicit and few and packed.device.type == "cpu" and not torch.compiler.is_compiling():
        return cast(Tensor, _ExplicitAttention.apply(query, packed))
    parts = packed.permute(2, 0, 3, 1, 4).unbind(0)
    asked = parts[0] if query is None else query.transpose(1, 2)
    return scaled_dot_product_attention(asked, parts[-2], parts[-1]).transpose(1, 2).flatten(2)


class VitBlock(Block):
    """timm's block (same parameters, names and results) that can be asked for a part of its tokens.

    That is an argument of ``forward``, where FSDP, activation checkpointing, compilers and hooks meet it.
    """

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        rows: slice | None = None,
    ) -> Float[Tensor, "b r d"]:
        """Return the block's tokens; with ``rows``, without computing others' queries, projection and MLP.

        Drop path draws as many numbers as for all tokens (one per image), so that the same seed drops the same.

        Args:
            x: All tokens, which are attended to.
            attn_mask: timm's business.
            is_causal: Likewise.
            rows: Those whose result is wanted, in a block whose attention has no normalised queries and keys and no
                mask; ``None`` for all.
        """
        if rows is None:
            return super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
        attention = cast(Attention, self.attn)
        width = attention.qkv.weight.shape[1]
        weight, bias = attention.qkv.weight, attention.qkv.bias
        sides = (attention.num_heads, attention.head_dim)
        normed = self.norm1(x)
        query = linear(normed[:, rows], weight[:width], None if bias is None else bias[:width])
        packed = linear(normed, weight[width:], None if bias is None else bias[width:])
        explicit = isinstance(attention, VitAttention) and attention.explicit
        attended = attend(query.unflatten(2, sides), packed.unflatten(2, (2, *sides)), explicit=explicit)
        wanted = x[:, rows] + self.drop_path1(self.ls1(attention.proj(attended)))
        return wanted + self.drop_path2(self.ls2(self.mlp(self.norm2(wanted))))


class _ExplicitAttention(Function):
    """Two batched products and a softmax; saves heads-first inputs and the probabilities, nothing else.

    The gradient is written straight into the layout of the joint projection. Products run in the inputs' precision, the
    softmax inside in float32, as PyTorch's softmax does on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor | None, packed: Tensor) -> Tensor:
        """Attend; ``[b, r, d]``."""
        b, n, slots, h, f = packed.shape
        # One copy brings the heads to the front for all parts at once.
        heads_first = packed.permute(2, 0, 3, 1, 4).reshape(slots, b * h, n, f)
        key, value = heads_first[-2], heads_first[-1]
        asked = heads_first[0] if query is None else query.transpose(1, 2).reshape(b * h, -1, f)
        asked = asked.mul_(f**-0.5) if query is None and not _shares(heads_first, packed) else asked * f**-0.5
        probability = torch.softmax(torch.bmm(asked, key.transpose(1, 2)), dim=-1, dtype=packed.dtype)
        ctx.save_for_backward(asked, key, value, probability)
        ctx.sizes = (b, slots, h, f)
        return torch.bmm(probability, value).view(b, h, -1, f).transpose(1, 2).reshape(b, -1, h * f)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # the decorator hides the first name
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Return the gradients of query (if there was one) and of the packed projection."""
        asked, key, value, probability = ctx.saved_tensors
        b, slots, h, f = ctx.sizes
        n, r = key.shape[1], asked.shape[1]
        (gradient,) = grad_outputs
        of_output = gradient.unflatten(2, (h, f)).transpose(1, 2).reshape(b * h, r, f)
        of_packed = gradient.new_empty(b, n, slots, h, f)
        slot = of_packed.permute(2, 0, 3, 1, 4)
        slot[-1].copy_(torch.bmm(probability.transpose(1, 2), of_output).view(b, h, n, f))
        of_probability = torch.bmm(of_output, value.transpose(1, 2))
        of_score = torch.ops.aten._softmax_backward_data(of_probability, probability, -1, probability.dtype)
        slot[-2].copy_(torch.bmm(of_score.transpose(1, 2), asked).view(b, h, n, f))
        of_query = torch.bmm(of_score, key).mul_(f**-0.5).view(b, h, r, f)
        if slots == 3:
            slot[0].copy_(of_query)
            return None, of_packed
        return of_query.transpose(1, 2), of_packed


def _shares(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors lie in the same memory, so that one must not be written in place."""
    # Not by the address of the data: tensors without data have none.
    return one.untyped_storage()._cdata == other.untyped_storage()._cdata
