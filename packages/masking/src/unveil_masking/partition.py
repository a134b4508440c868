"""The outcome of masking: which tokens an encoder sees, which are hidden, and how to put them back in order.

Shapes: b samples, n tokens, k kept, m hidden (n = k + m).
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from unveil_masking._arrays import arange, from_host, library, on_host
from unveil_masking.errors import CountError
from unveil_masking.grid import Grid

__all__ = ["Partition", "partition_from_mask"]

Array = TypeVar("Array")


@dataclass(frozen=True, slots=True, eq=False)
class Partition(Generic[Array]):
    """A split of every sample's tokens into kept and hidden ones: a mask, from which all else follows.

    Most strategies keep the same number of tokens in every sample of a batch. Then `keep`, `hidden`, `take` and
    `restore` work on rectangles. For the others, `equal_count` is None: use `mask`, `counts`, or `pack`.
    Strategies make partitions; there is no need to build one by hand. The index arrays are made on each access.
    """

    mask: Array
    """Bool [b, n], True where hidden."""
    grid: Grid
    """The token grid that was masked."""
    equal_count: int | None
    """k where every sample keeps the same number of tokens, else None. Known without looking at the mask."""
    most_kept: int | None = None
    """No sample keeps more tokens than this; None if that is not known. Known without looking at the mask."""

    @property
    def order(self) -> Array:
        """int64 [b, n]: every sample's kept tokens ascending, then its hidden ones ascending."""
        host = on_host(self.mask)
        if host is not None:
            return from_host(host.argsort(-1, kind="stable"), self.mask)
        place: Any = self.restore
        token = arange(self.grid.num, place).expand(place.shape)
        return place.new_empty(place.shape).scatter_(-1, place, token)  # the inverse permutation, without a sort

    @property
    def restore(self) -> Array:
        """int64 [b, n], the inverse of `order`: gathering concat(keep, hidden) by it gives the original order."""
        host = on_host(self.mask)
        if host is not None:
            order = host.argsort(-1, kind="stable")
            place = np.empty_like(order)
            np.put_along_axis(place, order, np.broadcast_to(arange(order.shape[1], order), order.shape), 1)
            return from_host(place, self.mask)
        mask: Any = self.mask
        xp: Any = library(mask)
        kept_before = xp.cumsum(~mask, -1)
        # A token's place is its rank on its own side, hidden ones after the kept; token i has i tokens before it.
        hidden_before = arange(self.grid.num, mask) - kept_before
        return xp.where(mask, kept_before[:, -1:] + hidden_before, kept_before - 1)

    @property
    def counts(self) -> Array:
        """int64 [b]: number of kept tokens of each sample."""
        mask: Any = self.mask
        return (~mask).sum(-1)

    @property
    def keep(self) -> Array:
        """int64 [b, k], ascending: tokens the encoder sees.

        Raises:
            CountError: the samples keep unequal numbers of tokens.
        """
        return self._side(self.num_kept, hidden=False)

    @property
    def hidden(self) -> Array:
        """int64 [b, m], ascending: tokens the encoder does not see.

        Raises:
            CountError: the samples keep unequal numbers of tokens.
        """
        return self._side(self.num_hidden, hidden=True)

    def _side(self, count: int, *, hidden: bool) -> Array:
        """`count` tokens of each sample, those whose mask is `hidden`."""
        host = on_host(self.mask)
        if host is None:
            order: Any = self.order
            return order[:, self.num_kept :] if hidden else order[:, : self.num_kept]
        flat = np.flatnonzero(host if hidden else ~host).reshape(len(host), count)
        flat -= arange(len(host), host)[:, None] * self.grid.num
        return from_host(flat, self.mask)

    @property
    def num_kept(self) -> int:
        """k, the number of kept tokens of each sample.

        Raises:
            CountError: the samples keep unequal numbers of tokens.
        """
        if self.equal_count is None:
            raise CountError(
                "the samples of this partition keep unequal numbers of tokens, so that there is no one rectangle of "
                "them. Use `pack(tokens, partition)`, `partition.mask` and `partition.counts`, or a strategy with an "
                "exact count."
            )
        return self.equal_count

    @property
    def num_hidden(self) -> int:
        """m, the number of hidden tokens of each sample.

        Raises:
            CountError: the samples keep unequal numbers of tokens.
        """
        return self.grid.num - self.num_kept

    @property
    def ratio(self) -> float:
        """The realised ratio m / n, which rounding may have moved away from the ratio asked for.

        Raises:
            CountError: the samples keep unequal numbers of tokens; `ratios` has one for each.
        """
        return self.num_hidden / self.grid.num

    @property
    def ratios(self) -> Array:
        """Float [b]: the realised ratio of each sample."""
        counts: Any = self.counts
        return 1 - counts / self.grid.num

    def complement(self) -> "Partition[Array]":
        """The partition that keeps what this one hides: the second view of SplitMask, or of a FLIP ensemble."""
        mask: Any = self.mask
        count = None if self.equal_count is None else self.num_hidden
        return Partition(~mask, self.grid, count, count)


def partition_from_mask(mask: Any, num_kept: int | None, grid: Grid, most_kept: int | None = None) -> Partition[Any]:
    """Partition of a bool mask [b, n], True = hidden.

    Args:
        mask: The mask.
        num_kept: How many are False in every row, or None if the rows differ.
        grid: Its grid.
        most_kept: A bound of how many are False in a row, or None for `num_kept`.
    """
    return Partition(mask, grid, num_kept, num_kept if most_kept is None else most_kept)
