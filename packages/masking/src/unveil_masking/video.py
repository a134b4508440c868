"""Masks of clips, on a grid with axes t, rows, cols: VideoMAE's tube and frame masking (arXiv:2203.12602, section 3.3).

`TubeMask` hides the same places in every temporal slot, `FrameMask` all places of some slots.
"""

from dataclasses import dataclass
from typing import Any

from unveil_masking._arrays import library
from unveil_masking._base import Share, Strategy, check_share
from unveil_masking._ranking import hidden_units
from unveil_masking.counts import Rounding, check_ratio, num_hidden
from unveil_masking.errors import KeyArrayError
from unveil_masking.grid import Grid

__all__ = ["FrameMask", "TubeMask"]


@dataclass(frozen=True, slots=True)
class TubeMask(Strategy):
    """Hide the same random places in every temporal slot: hidden = frames · floor(rows · cols · ratio), as VideoMAE.

    `TubeMask(0.9)` on `Grid(14, 14, frames=8)` hides 176 of 196 places, so 20 × 8 tokens stay visible. On an image it
    is `RandomMask` with the rounding rule of VideoMAE.

    Raises:
        RatioError: a ratio outside [0, 1) or an unknown rounding rule.
        KeyArrayError: an unknown way of sharing.
    """

    ratio: float
    """Share of places to hide, in [0, 1); read as its shortest decimal."""
    rounding: Rounding = "floor_hidden"
    """How the count of places is rounded, see `unveil_masking.counts`."""
    share: Share = "clip"
    """"clip" (a tube for each clip; "sample" is the same) or "batch" (one for all clips of a batch)."""

    def __post_init__(self) -> None:
        check_ratio(self.ratio, self.rounding)
        check_share(self.share)

    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the strategy."""
        return {"strategy": "tube", "ratio": self.ratio, "rounding": self.rounding, "share": self.share}

    def _draw(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        image = grid.image
        hidden = num_hidden(image.num, self.ratio, self.rounding)
        places = hidden_units(image.num, hidden, sample_ids, seed, epoch)
        xp: Any = library(places)
        return xp.tile(places, (1, grid.frames))

    def _hidden_range(self, grid: Grid) -> tuple[int, int]:
        hidden = num_hidden(grid.image.num, self.ratio, self.rounding) * grid.frames
        return hidden, hidden


@dataclass(frozen=True, slots=True)
class FrameMask(Strategy):
    """Hide whole temporal slots at random: hidden = rows · cols · floor(frames · ratio).

    `FrameMask(0.875)` on `Grid(14, 14, frames=8)` hides 7 of 8 slots.

    Raises:
        RatioError: a ratio outside [0, 1) or an unknown rounding rule.
        KeyArrayError: an unknown way of sharing, or "clip", which would hide the same places in every slot.
    """

    ratio: float
    """Share of slots to hide, in [0, 1); read as its shortest decimal."""
    rounding: Rounding = "floor_hidden"
    """How the count of slots is rounded, see `unveil_masking.counts`."""
    share: Share = "sample"
    """"sample" or "batch", see `Share`."""

    def __post_init__(self) -> None:
        check_ratio(self.ratio, self.rounding)
        check_share(self.share)
        if self.share == "clip":
            raise KeyArrayError(
                'FrameMask tells the slots of a clip apart, which share="clip" forbids. '
                "Allowed: sample, batch. For the same places in every slot use TubeMask."
            )

    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the strategy."""
        return {"strategy": "frame", "ratio": self.ratio, "rounding": self.rounding, "share": self.share}

    def _draw(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        hidden = num_hidden(grid.frames, self.ratio, self.rounding)
        slots = hidden_units(grid.frames, hidden, sample_ids, seed, epoch)
        xp: Any = library(slots)
        batch, place = slots.shape[0], grid.image.num
        return xp.broadcast_to(slots[:, :, None], (batch, grid.frames, place)).reshape(batch, grid.num)

    def _hidden_range(self, grid: Grid) -> tuple[int, int]:
        hidden = num_hidden(grid.frames, self.ratio, self.rounding) * grid.image.num
        return hidden, hidden
