"""What all mask strategies share: keys, one mask per sample, clip or batch, counts, and the way from mask to partition.

A strategy is a frozen dataclass with a field `share`, and three small methods: `_draw` (the masks), `_hidden_range`
(how many tokens they hide) and `describe`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from unveil_masking._arrays import from_host, integers, library, on_host
from unveil_masking._noise import epoch_key
from unveil_masking.errors import CountError, KeyArrayError
from unveil_masking.grid import Grid
from unveil_masking.partition import Partition, partition_from_mask

__all__ = ["Draw", "Share", "Strategy", "batch_key", "check_share"]

Array = TypeVar("Array")

Draw = Callable[[Grid, Any, int, Any], Any]
"""(grid, sample ids int64 [b], seed, epoch as an int or int64 [b]) → bool [b, …, n], True = hidden."""

Share = Literal["sample", "clip", "batch"]
"""Who shares a mask: nobody ("sample"), the temporal slots of a clip ("clip": a tube), or a whole batch ("batch").

A batch's mask is a function of (seed, smallest epoch, smallest sample id of the batch), so it does not depend on the
order of the samples; unlike the others it does depend on which samples meet in a batch.
"""


class Strategy(ABC):
    """A masking strategy: a frozen value with a pure `sample`."""

    __slots__ = ()

    share: Share

    def sample(self, grid: Grid, sample_ids: Array, *, seed: int, epoch: int | Array = 0) -> Partition[Array]:
        """The partition of each sample, a pure function of (seed, epoch, sample id).

        On torch nothing waits for the device, and the call can be traced by `torch.compile(fullgraph=True)`. Strategy
        and grid are constants to the compiler: if one compiled function meets several, compile it with `dynamic=False`.

        Args:
            grid: the token grid.
            sample_ids: int64 [b], NumPy or torch; the result has its library and device.
            seed: 0 ≤ seed < 2⁶⁴.
            epoch: one int, or int64 [b] aligned with `sample_ids`. Validation uses one fixed epoch.

        Raises:
            MaskingError: the ratio, unit or block does not fit this grid, or a key has a wrong type, shape or range.
        """
        return self._partition(self._draw, grid, sample_ids, seed, epoch)

    def _partition(self, draw: Draw, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Partition[Any]:
        fewest, most = self.hidden_range(grid)
        mask = self._masks(draw, grid, sample_ids, seed, epoch)
        return partition_from_mask(mask, grid.num - most if fewest == most else None, grid, grid.num - fewest)

    def _masks(self, draw: Draw, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        """Bool [b, …, n] of what `draw` makes of keys and layout as `share` has it, where the sample ids live."""
        layout = grid.image if self.share == "clip" else grid
        given: Any = integers(sample_ids, "sample_ids")
        ids, key_epoch = _on_host_if_possible(given, epoch_key(epoch, given))
        xp: Any = library(ids)
        if self.share == "batch" and len(ids):
            one: Any = draw(layout, *batch_key(ids, key_epoch, seed))
            mask = xp.broadcast_to(one, (ids.shape[0], *one.shape[1:]))
        else:
            mask = draw(layout, ids, seed, key_epoch)
        if layout is not grid:
            mask = xp.tile(mask, (grid.frames,))
        return mask if ids is given else from_host(np.ascontiguousarray(mask), given)

    def hidden_range(self, grid: Grid) -> tuple[int, int]:
        """Fewest and most tokens that a sample can hide on this grid; equal for strategies with an exact count.

        Raises:
            MaskingError: the strategy does not fit this grid.
        """
        if self.share != "clip":
            return self._hidden_range(grid)
        fewest, most = self._hidden_range(grid.image)
        return fewest * grid.frames, most * grid.frames

    def num_hidden(self, grid: Grid) -> int:
        """Number of tokens hidden in every sample on this grid.

        Raises:
            CountError: the samples hide unequal numbers of tokens; see `hidden_range`.
        """
        fewest, most = self.hidden_range(grid)
        if fewest != most:
            raise CountError(
                f"{self} hides between {fewest} and {most} of {grid.num} tokens, so that there is no one number. "
                "Use `hidden_range`, or the `counts` of a partition."
            )
        return most

    def realised_ratio(self, grid: Grid) -> float:
        """`num_hidden(grid) / grid.num`; errors as `num_hidden`."""
        return self.num_hidden(grid) / grid.num

    @abstractmethod
    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the strategy."""

    @abstractmethod
    def _draw(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        """Bool [b, n], True = hidden; `epoch` is an int or int64 [b]."""

    @abstractmethod
    def _hidden_range(self, grid: Grid) -> tuple[int, int]:
        """`hidden_range` of one mask, before it is repeated over the slots of a clip."""


def batch_key(ids: Any, epoch: Any, seed: int) -> tuple[Any, int, Any]:
    """Sample id [1], seed, and epoch (an int or [1]) that stand for a whole batch; see `Share`."""
    return ids.min().reshape(1), seed, epoch if isinstance(epoch, int) else epoch.min().reshape(1)


def check_share(share: Share) -> None:
    """Refuse an unknown way of sharing.

    Raises:
        KeyArrayError: with the allowed values.
    """
    if share not in get_args(Share):
        raise KeyArrayError(f"share={share!r} is unknown. Allowed: {', '.join(get_args(Share))}.")


def _on_host_if_possible(ids: Any, epoch: Any) -> tuple[Any, Any]:
    """Both keys as NumPy arrays over the same memory where that is faster, see `on_host`; else as they are."""
    if library(ids) is np or (host_ids := on_host(ids)) is None:
        return ids, epoch
    if isinstance(epoch, int):
        return host_ids, epoch
    host_epoch = on_host(epoch)
    return (ids, epoch) if host_epoch is None else (host_ids, host_epoch)
