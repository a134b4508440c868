"""How CUDA computes, as far as memory is concerned, for tensors without data, which PyTorch takes to lie on a CPU.

Two things differ from a CPU. Fused attention keeps no probabilities, also where a learned bias is added to its scores;
the gradient of that bias is as large as the scores of one layer. And under bfloat16 autocast widens what these
operations are given to float32 (PyTorch's "CUDA Ops that can autocast to float32"), where a CPU leaves it narrow.

Shapes: b samples, h heads, q and k tokens, d width of a head.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["CudaRules"]

_WIDE: frozenset[Callable[..., Any]] = frozenset(
    {
        F.layer_norm,
        torch.layer_norm,
        F.softmax,
        torch.softmax,
        F.l1_loss,
        F.mse_loss,
        F.smooth_l1_loss,
        F.cross_entropy,
        torch.linalg.vector_norm,
    }
)


class CudaRules(TorchFunctionMode):
    """While it is entered, attention and autocast allocate what they do on CUDA."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, or what stands for it on CUDA."""
        del types
        named: dict[str, Any] = kwargs or {}
        if func is F.scaled_dot_product_attention and named.get("attn_mask") is not None:
            return _Attention.apply(*args, named["attn_mask"])
        if func in _WIDE and torch.is_autocast_enabled("cpu"):
            return func(*map(_widened, args), **{name: _widened(value) for name, value in named.items()})
        return func(*args, **named)


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


class _Attention(torch.autograd.Function):
    """Allocates what the memory-efficient kernel does; the numbers mean nothing."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Float[Tensor, "b h q d"],
        key: Float[Tensor, "b h k d"],
        value: Float[Tensor, "b h k d"],
        bias: Float[Tensor, "b h q k"],
    ) -> Float[Tensor, "b h q d"]:
        out, log_sums = torch.empty_like(query), query.new_empty(query.shape[:3], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, bias, out, log_sums)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        del gradients
        query, key, value, bias, _, _ = ctx.saved_tensors
        of_bias = query.new_empty(bias.shape)  # whole, although images share the bias itself
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), of_bias
