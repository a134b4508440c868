"""Moving tokens through a partition: what the encoder sees, and back to full length.

Shapes: b samples, n tokens, k kept, m hidden, d width. Gradients flow through `take` and `restore` on torch.
"""

from typing import Any, TypeVar

import numpy as np

from unveil_masking._arrays import gather, library, where_am_i
from unveil_masking.errors import TokenShapeError
from unveil_masking.partition import Partition

__all__ = ["check_tokens", "filling", "restore", "take", "to_pixels"]

Array = TypeVar("Array")


def take(tokens: Array, partition: Partition[Array]) -> Array:
    """The kept tokens, [b, n, d] → [b, k, d], in their original order.

    Raises:
        TokenShapeError: the tokens do not fit the partition or live elsewhere.
    """
    check_tokens(tokens, partition, partition.grid.num, "tokens")
    return gather(tokens, partition.keep)


def restore(kept_tokens: Array, partition: Partition[Array], fill: Array | float) -> Array:
    """Full-length tokens, [b, k, d] → [b, n, d], with `fill` at every hidden place.

    Args:
        kept_tokens: [b, k, d], as `take` gave them (or an encoder made of them).
        partition: the partition they were taken by.
        fill: a number, or an array that broadcasts to [b, m, d] (a mask token is [d]); it is cast to the dtype of
            `kept_tokens`, which stays in charge under mixed precision.

    Raises:
        TokenShapeError: the tokens or the fill do not fit the partition or live elsewhere.
    """
    check_tokens(kept_tokens, partition, partition.num_kept, "kept_tokens")
    tokens: Any = kept_tokens
    xp: Any = library(tokens)
    shape = (tokens.shape[0], partition.num_hidden, tokens.shape[2])
    whole = xp.concatenate([tokens, filling(fill, tokens, shape)], 1)
    return gather(whole, partition.restore)


def to_pixels(mask: Array | Partition[Array], patch: int) -> Array:
    """A mask at pixel resolution, True where hidden.

    Args:
        mask: a partition, or a bool mask [b, rows, cols].
        patch: side of a token in pixels, at least 1.

    Returns:
        Bool [b, rows·patch, cols·patch].

    Raises:
        TokenShapeError: a flat mask (its grid is unknown) or an illegal patch size.
    """
    if not isinstance(patch, int) or patch < 1:
        raise TokenShapeError(f"patch={patch!r} is not a positive int. Give the side of a token in pixels.")
    dense: Any = mask
    if isinstance(mask, Partition):
        dense = mask.mask
        dense = dense.reshape(dense.shape[0], mask.grid.rows, mask.grid.cols)
    if library(dense) is None or dense.ndim != 3:
        raise TokenShapeError(
            f"mask is {where_am_i(dense)} of shape {getattr(dense, 'shape', None)}. Give the partition itself, "
            "or a bool mask reshaped to [b, rows, cols]."
        )
    xp: Any = library(dense)
    batch, rows, cols = dense.shape
    tall = xp.broadcast_to(dense[:, :, None, :, None], (batch, rows, patch, cols, patch))
    return tall.reshape(batch, rows * patch, cols * patch)


def filling(fill: Any, tokens: Any, shape: tuple[int, int, int]) -> Any:
    """`fill` as an array of `shape` in the dtype, library and device of `tokens`."""
    xp: Any = library(tokens)
    if isinstance(fill, (int, float)):
        return xp.broadcast_to(_number(fill, tokens), shape)
    if where_am_i(fill) != where_am_i(tokens):
        raise TokenShapeError(
            f"fill is {where_am_i(fill)} but kept_tokens is {where_am_i(tokens)}. "
            "Give a number, or an array in the same library and on the same device."
        )
    sides = zip(reversed(fill.shape), reversed(shape), strict=False)
    if fill.ndim > len(shape) or any(given not in (1, wanted) for given, wanted in sides):
        raise TokenShapeError(
            f"fill of shape {tuple(fill.shape)} does not broadcast to the hidden tokens {list(shape)}. "
            f"Give a number or a mask token of shape [{shape[-1]}]."
        )
    same_dtype = fill.astype(tokens.dtype) if library(fill) is np else fill.to(tokens.dtype)
    return xp.broadcast_to(same_dtype, shape)


def _number(value: float, like: Any) -> Any:
    """[1, 1, 1] in the dtype, library and device of `like`, which may be empty."""
    xp: Any = library(like)
    if xp is np:
        return np.full((1, 1, 1), value, dtype=like.dtype)
    return xp.full((1, 1, 1), value, dtype=like.dtype, device=like.device)


def check_tokens(tokens: Any, partition: Partition[Any], length: int, name: str) -> None:
    """Refuse tokens that are not [b, length, d], or not where the partition is.

    Raises:
        TokenShapeError: with what is needed.
    """
    mask: Any = partition.mask
    batch = mask.shape[0]
    if library(tokens) is None or tokens.ndim != 3 or tuple(tokens.shape[:2]) != (batch, length):
        raise TokenShapeError(
            f"{name} is {where_am_i(tokens)} of shape {tuple(getattr(tokens, 'shape', ()))}. This partition needs "
            f"[{batch}, {length}, width]: {batch} samples of {length} tokens on a grid of "
            f"{partition.grid}. Leave prefix tokens such as [CLS] out."
        )
    if where_am_i(tokens) != where_am_i(mask):
        raise TokenShapeError(
            f"{name} is {where_am_i(tokens)} but the partition is {where_am_i(mask)}. "
            "Sample with sample_ids in the same library and on the same device as the tokens."
        )
