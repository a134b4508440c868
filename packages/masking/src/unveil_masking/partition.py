"""The outcome of masking: which tokens an encoder sees, which are hidden, and how to put them back in order.

Shapes: b samples, n tokens, k kept, m hidden (n = k + m).
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from unveil_masking._arrays import library
from unveil_masking.grid import Grid

__all__ = ["Partition", "partition_from_mask"]

Array = TypeVar("Array")


@dataclass(frozen=True, slots=True, eq=False)
class Partition(Generic[Array]):
    """A split of every sample's tokens into kept and hidden ones; all arrays share one library and device.

    `keep` and `hidden` of one sample together are a permutation of 0 … n − 1, and every sample of a batch keeps the
    same number of tokens. Strategies make partitions; there is no need to build one by hand.
    """

    keep: Array
    """int64 [b, k], ascending: tokens the encoder sees."""
    hidden: Array
    """int64 [b, m], ascending: tokens it does not see."""
    restore: Array
    """int64 [b, n]: gathering concat(keep, hidden) by it gives the original order."""
    grid: Grid
    """The token grid that was masked."""

    @property
    def num_kept(self) -> int:
        """k, the number of kept tokens of each sample."""
        keep: Any = self.keep
        return keep.shape[1]

    @property
    def num_hidden(self) -> int:
        """m, the number of hidden tokens of each sample."""
        return self.grid.num - self.num_kept

    @property
    def mask(self) -> Array:
        """Bool [b, n], True where hidden; made on each access."""
        restore: Any = self.restore
        return restore >= self.num_kept

    @property
    def ratio(self) -> float:
        """The realised ratio m / n, which rounding may have moved away from the ratio asked for."""
        return self.num_hidden / self.grid.num


def partition_from_mask(mask: Any, num_kept: int, grid: Grid) -> Partition[Any]:
    """Partition of a bool mask [b, n] (True = hidden) in which every row has exactly `num_kept` False."""
    xp = library(mask)
    assert xp is not None
    # A token's place in concat(keep, hidden) is its rank among the tokens of its own side, hidden ones after the kept.
    restore = xp.where(mask, num_kept - 1 + xp.cumsum(mask, -1), xp.cumsum(~mask, -1) - 1)
    order = restore.argsort(-1)
    return Partition(order[:, :num_kept], order[:, num_kept:], restore, grid)
