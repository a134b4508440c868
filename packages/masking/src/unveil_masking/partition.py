"""The outcome of masking: which tokens an encoder sees, which are hidden, and how to put them back in order.

Shapes: b samples, n tokens, k kept, m hidden (n = k + m).
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from unveil_masking._arrays import library
from unveil_masking.errors import CountError
from unveil_masking.grid import Grid

__all__ = ["Partition", "partition_from_mask"]

Array = TypeVar("Array")


@dataclass(frozen=True, slots=True, eq=False)
class Partition(Generic[Array]):
    """A split of every sample's tokens into kept and hidden ones; all arrays share one library and device.

    Most strategies keep the same number of tokens in every sample of a batch. Then `keep`, `hidden`, `take` and
    `restore` work on rectangles. For the others, `equal_count` is None: use `mask`, `counts`, or `pack`.
    Strategies make partitions; there is no need to build one by hand.
    """

    order: Array
    """int64 [b, n]: every sample's kept tokens ascending, then its hidden ones ascending."""
    restore: Array
    """int64 [b, n], the inverse of `order`: gathering concat(keep, hidden) by it gives the original order."""
    counts: Array
    """int64 [b]: number of kept tokens of each sample."""
    grid: Grid
    """The token grid that was masked."""
    equal_count: int | None
    """k where every sample keeps the same number of tokens, else None. Known without looking at the arrays."""

    @property
    def keep(self) -> Array:
        """int64 [b, k], ascending: tokens the encoder sees.

        Raises:
            CountError: the samples keep unequal numbers of tokens.
        """
        order: Any = self.order
        return order[:, : self.num_kept]

    @property
    def hidden(self) -> Array:
        """int64 [b, m], ascending: tokens the encoder does not see.

        Raises:
            CountError: the samples keep unequal numbers of tokens.
        """
        order: Any = self.order
        return order[:, self.num_kept :]

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
    def mask(self) -> Array:
        """Bool [b, n], True where hidden; made on each access."""
        restore: Any = self.restore
        counts: Any = self.counts
        return restore >= counts[:, None]

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
        """The partition that keeps what this one hides: the second view of SplitMask, or of a FLIP ensemble.

        Raises:
            CountError: the samples keep unequal numbers of tokens.
        """
        order: Any = self.order
        xp: Any = library(order)
        kept, hidden = self.num_kept, self.num_hidden
        place: Any = self.restore
        return Partition(
            order=xp.concatenate([order[:, kept:], order[:, :kept]], 1),
            restore=xp.where(place < kept, place + hidden, place - kept),
            counts=self.grid.num - self.counts,  # pyright: ignore[reportOperatorIssue] -- an array of either library
            grid=self.grid,
            equal_count=hidden,
        )


def partition_from_mask(mask: Any, num_kept: int | None, grid: Grid) -> Partition[Any]:
    """Partition of a bool mask [b, n], True = hidden.

    Args:
        mask: The mask.
        num_kept: How many are False in every row, or None if the rows differ.
        grid: Its grid.
    """
    xp = library(mask)
    assert xp is not None
    kept_before = xp.cumsum(~mask, -1)
    counts = kept_before[:, -1]
    # A token's place in concat(keep, hidden) is its rank among the tokens of its own side, hidden ones after the kept.
    restore = xp.where(mask, counts[:, None] - 1 + xp.cumsum(mask, -1), kept_before - 1)
    return Partition(restore.argsort(-1), restore, counts, grid, num_kept)
