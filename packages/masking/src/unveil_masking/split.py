"""Two disjoint halves that cover the image: SplitMask (El-Nouby et al., arXiv:2112.10740)."""

from dataclasses import dataclass
from typing import Any

from unveil_masking._base import Share, Strategy, check_share
from unveil_masking._ranking import hidden_units
from unveil_masking.grid import Grid

__all__ = ["SplitMask"]


@dataclass(frozen=True, slots=True)
class SplitMask(Strategy):
    """Split the tokens at random into half A, which is kept, and half B, which is hidden: hidden = ⌊n/2⌋.

    `partition.complement()` keeps half B and hides half A, so that an encoder may see both. With an odd number of
    tokens A has one more than B. The masks are those of `RandomMask(0.5, "floor_hidden")`.

    Raises:
        KeyArrayError: an unknown way of sharing.
    """

    share: Share = "sample"
    """Who shares a mask, see `Share`."""

    def __post_init__(self) -> None:
        check_share(self.share)

    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the strategy."""
        return {"strategy": "split", "share": self.share}

    def _draw(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        return hidden_units(grid.num, grid.num // 2, sample_ids, seed, epoch)

    def _hidden_range(self, grid: Grid) -> tuple[int, int]:
        return grid.num // 2, grid.num // 2
