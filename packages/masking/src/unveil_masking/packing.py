"""Kept tokens of samples with unequal counts, one sequence after the other without padding; and the way back.

The layout is that of variable-length attention kernels such as flash-attn's: `cu_seqlens` holds where each sample's
tokens begin, and where the last one's end. Shapes: b samples, n tokens, d width, s packed tokens.
"""

from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from unveil_masking._arrays import arange, from_host, library, on_host, where_am_i
from unveil_masking.errors import CountError, TokenShapeError
from unveil_masking.partition import Partition
from unveil_masking.tokens import check_tokens, filling

__all__ = ["Packed", "pack", "unpack"]

Array = TypeVar("Array")


class Packed(NamedTuple, Generic[Array]):
    """What `pack` gives."""

    tokens: Array
    """[s, d]: the kept tokens of the first sample in their order, then of the second, and so on."""
    cu_seqlens: Array
    """int32 [b + 1]: sample i's tokens are `tokens[cu_seqlens[i] : cu_seqlens[i + 1]]`."""
    max_seqlen: int
    """No sample has more tokens. Known from the strategy and the grid; the longest sample may be shorter."""


def pack(tokens: Array, partition: Partition[Array], *, capacity: int | None = None) -> Packed[Array]:
    """The kept tokens, [b, n, d] → [s, d], without padding; gradients flow on torch.

    How many tokens a batch of unequal counts keeps is known from its masks alone. Without a `capacity`, s is that
    number, for which a GPU makes the host wait once. With one, s is `capacity`, nothing waits, and a CUDA graph or
    `torch.compile(fullgraph=True)` can hold the call; rows beyond `cu_seqlens[-1]` are 0. `b * partition.most_kept`
    rows are always enough; masks drawn on the host, in the data loader, tell the exact number for nothing.

    Args:
        tokens: [b, n, d].
        partition: which of them are kept.
        capacity: rows of the result, at least as many as tokens are kept. Too few are refused where that needs no wait
            for a device, and elsewhere are the library's own error of an index out of bounds.

    Raises:
        TokenShapeError: the tokens do not fit the partition, live elsewhere, or are 2³¹ or more.
        CountError: too small a capacity.
    """
    check_tokens(tokens, partition, partition.grid.num, "tokens")
    given: Any = tokens
    batch, num, width = given.shape
    if batch * num >= 2**31:
        raise TokenShapeError(f"tokens of shape {tuple(given.shape)} are too many for int32 offsets. Split the batch.")
    flat = given.reshape(batch * num, width)
    most = num if partition.most_kept is None else partition.most_kept
    index = _index(partition, capacity)
    if capacity is None:
        return Packed(_rows(flat, index), _offsets(partition), most)
    if batch == 0:
        shape = (capacity, width)
        nothing: Any = np.zeros(shape, dtype=flat.dtype) if library(flat) is np else flat.new_zeros(shape)
        return Packed(nothing, _offsets(partition), most)
    xp: Any = library(flat)
    filled = index < len(flat)
    rows = _rows(flat, xp.where(filled, index, 0))
    return Packed(xp.where(filled[:, None], rows, xp.zeros_like(rows)), _offsets(partition), most)


def unpack(packed: Array, partition: Partition[Array], fill: Array | float) -> Array:
    """Full-length tokens, [s, d] → [b, n, d], with `fill` at every hidden place; gradients flow on torch.

    Nothing waits for a device.

    Args:
        packed: [s, d], the tokens of `pack` (or what an encoder made of them); rows beyond the kept ones are ignored.
        partition: the partition they were packed by.
        fill: a number, or an array that broadcasts to [b, n, d] (a mask token is [d]); it is cast to the dtype of
            `packed`.

    Raises:
        TokenShapeError: the tokens or the fill do not fit the partition or live elsewhere. Too few rows are refused
            where that needs no wait for a device, and elsewhere are the library's own error of an index out of bounds.
    """
    mask: Any = partition.mask
    rows: Any = packed
    xp: Any = library(rows)
    if xp is None or rows.ndim != 2 or where_am_i(rows) != where_am_i(mask):
        raise TokenShapeError(
            f"packed is {where_am_i(rows)} of shape {tuple(getattr(rows, 'shape', ()))} but the partition "
            f"{where_am_i(mask)}. Give the tokens of `pack`, [s, width], in the same library and on the same device."
        )
    kept = _num_kept(partition)
    if kept is not None and len(rows) < kept:
        raise TokenShapeError(f"packed has {len(rows)} rows but the partition keeps {kept} tokens. Give all of them.")
    shape = (*mask.shape, rows.shape[1])
    filler = filling(fill, rows, shape)
    if len(rows) == 0:  # then nothing is kept
        return xp.where(mask[..., None], filler, filler)
    place = (~mask).reshape(-1).cumsum(0) - 1
    whole = _rows(rows, place.clip(min=0)).reshape(shape)
    return xp.where(mask[..., None], filler, whole)


def _index(partition: Partition[Any], capacity: int | None) -> Any:
    """int64 [s]: for each packed row the token, counted through the batch, or the number of all tokens for none."""
    mask: Any = partition.mask
    batch, num = mask.shape
    host = on_host(mask)
    if capacity is not None:
        _check_capacity(capacity, _num_kept(partition))
    if host is not None:
        kept = np.flatnonzero(~host)
        none = np.full(0 if capacity is None else capacity - len(kept), batch * num)
        return from_host(np.concatenate([kept, none]), mask)
    if capacity is None:
        if partition.equal_count is None:
            return (~mask).reshape(-1).nonzero()[:, 0]  # the one place where the host waits
        return (partition.keep + arange(batch, mask)[:, None] * num).reshape(-1)
    kept = (~mask).reshape(-1)
    place = kept.cumsum(0) * kept  # from 1; 0 for hidden tokens
    index = place.new_full((capacity + 1,), batch * num)
    return index.scatter_(0, place, arange(batch * num, mask))[1:]


def _num_kept(partition: Partition[Any]) -> int | None:
    """How many tokens the batch keeps, or None where the host would have to wait to know."""
    mask: Any = partition.mask
    if partition.equal_count is not None:
        return partition.equal_count * mask.shape[0]
    host = on_host(mask)
    return None if host is None else int(host.size - np.count_nonzero(host))


def _check_capacity(capacity: int, kept: int | None) -> None:
    if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < (kept or 0):
        raise CountError(
            f"capacity={capacity!r} is not an int of at least {kept or 0}, the number of kept tokens. Leave it out, or "
            "give b * partition.most_kept, which is always enough."
        )


def _offsets(partition: Partition[Any]) -> Any:
    """int32 [b + 1]: how many tokens the samples before each one keep."""
    counts: Any = partition.counts
    xp: Any = library(counts)
    if xp is np:
        return np.concatenate([[0], counts.cumsum()]).astype(np.int32)
    return xp.nn.functional.pad(counts.cumsum(0), (1, 0)).to(xp.int32)


def _rows(array: Any, index: Any) -> Any:
    """`array[index]` along the first axis."""
    return array[index] if library(array) is np else array.index_select(0, index)
