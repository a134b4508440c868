"""The two plain random strategies: frozen values with a pure `sample`.

* `RandomMask` hides single tokens: MAE (arXiv:2111.06377) and FLIP (arXiv:2212.00794).
* `UnitMask` hides square units of several tokens: SimMIM (arXiv:2111.09886) hides 32-pixel units of 4-pixel tokens.

A unit is hidden when its noise is among the largest (`_ranking.py`).
"""

from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np

from unveil_masking._arrays import arange, library
from unveil_masking._base import Share, Strategy, check_share
from unveil_masking._noise import noise_range
from unveil_masking._ranking import hidden_units
from unveil_masking._select import hide_largest, unique
from unveil_masking.counts import Rounding, check_ratio, num_hidden
from unveil_masking.errors import UnitError
from unveil_masking.grid import Grid

__all__ = ["RandomMask", "UnitMask"]

_EQUAL_BYTES = {2: np.uint16(0x0101), 4: np.uint32(0x01010101), 8: np.uint64(0x0101010101010101)}
"""Factors that copy the byte 1 of a number of 2, 4 or 8 bytes to all of them."""


@dataclass(frozen=True, slots=True)
class RandomMask(Strategy):
    """Hide single tokens at random: kept = floor(n · (1 − ratio)), as in MAE and FLIP.

    Raises:
        RatioError: a ratio outside [0, 1) or an unknown rounding rule.
    """

    ratio: float
    """Share of tokens to hide, in [0, 1); read as its shortest decimal."""
    rounding: Rounding = "floor_keep"
    """How the count is rounded, see `unveil_masking.counts`."""
    share: Share = "sample"
    """Who shares a mask, see `Share`."""

    def __post_init__(self) -> None:
        check_ratio(self.ratio, self.rounding)
        check_share(self.share)

    def _draw(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        return hidden_units(grid.num, self._hidden_range(grid)[1], sample_ids, seed, epoch)

    def draw_hidden(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any, hidden: Any) -> Any:
        """Bool [b, n] with a count of its own for each sample; `hidden` is int64 [b]."""
        return hide_largest(unique(noise_range(seed, epoch, sample_ids, grid.num)), hidden)

    def _hidden_range(self, grid: Grid) -> tuple[int, int]:
        hidden = num_hidden(grid.num, self.ratio, self.rounding)
        return hidden, hidden

    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the strategy."""
        return {"strategy": "random", "ratio": self.ratio, "rounding": self.rounding, "unit": 1, "share": self.share}


@dataclass(frozen=True, slots=True)
class UnitMask(Strategy):
    """Hide square units of `unit` × `unit` tokens: hidden units = ceil(units · ratio), as in SimMIM.

    SimMIM at 192 pixels with SwinV2 (4-pixel tokens) and 32-pixel units is `UnitMask(8, 0.6)` on `Grid(48, 48)`:
    6 × 6 units, 22 of them hidden.

    Raises:
        UnitError: the unit is not a positive int.
        RatioError: a ratio outside [0, 1) or an unknown rounding rule.
    """

    unit: int
    """Side of a mask unit, in tokens; it must divide both sides of the grid."""
    ratio: float
    """Share of units to hide, in [0, 1); read as its shortest decimal."""
    rounding: Rounding = "ceil_hidden"
    """How the count is rounded, see `unveil_masking.counts`."""
    share: Share = "sample"
    """Who shares a mask, see `Share`."""

    def __post_init__(self) -> None:
        if not isinstance(self.unit, int) or isinstance(self.unit, bool) or self.unit < 1:
            raise UnitError(
                f"unit={self.unit!r} is not a positive int. Give the side of a mask unit in tokens, "
                "for example 8 for 32-pixel units of 4-pixel tokens."
            )
        check_ratio(self.ratio, self.rounding)
        check_share(self.share)

    def _draw(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        units = self._units(grid)
        hidden = num_hidden(units.num, self.ratio, self.rounding)
        unit_mask: Any = hidden_units(units.num, hidden, sample_ids, seed, epoch)
        if library(unit_mask) is np:
            return _spread(unit_mask.reshape(len(unit_mask), units.frames * units.rows, units.cols), self.unit)
        token = arange(grid.num, unit_mask)
        row, col = token // grid.cols, token % grid.cols  # rows run on through the slots of a clip
        return unit_mask[:, row // self.unit * units.cols + col // self.unit]

    def _hidden_range(self, grid: Grid) -> tuple[int, int]:
        hidden = num_hidden(self._units(grid).num, self.ratio, self.rounding) * self.unit**2
        return hidden, hidden

    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the strategy."""
        return {
            "strategy": "unit",
            "ratio": self.ratio,
            "rounding": self.rounding,
            "unit": self.unit,
            "share": self.share,
        }

    def _units(self, grid: Grid) -> Grid:
        """The grid of units; partial units are refused, because they would make the realised ratio vary."""
        common = gcd(grid.rows, grid.cols)
        if common % self.unit:
            allowed = ", ".join(str(side) for side in range(1, common + 1) if common % side == 0)
            raise UnitError(
                f"UnitMask(unit={self.unit}) does not tile a grid of {grid} tokens. "
                f"Units allowed on this grid: {allowed}. Change the unit or the image size."
            )
        return Grid(grid.rows // self.unit, grid.cols // self.unit, grid.frames)


def _spread(units: np.ndarray, side: int) -> np.ndarray:
    """Bool [b, rows · side · cols · side] of a bool mask of units [b, rows, cols]: every unit as side × side tokens.

    Copies whole rows, and makes those of equal bytes, two, four or eight at a time: several times as fast as an index.
    """
    batch, rows, cols = units.shape
    if side in _EQUAL_BYTES:
        numbers = units.view(np.uint8).astype(_EQUAL_BYTES[side].dtype)
        wide = np.multiply(numbers, _EQUAL_BYTES[side], out=numbers).view(bool)
    else:
        wide = np.repeat(units, side, axis=2)
    lines = wide.reshape(batch * rows * cols * side).view(f"V{cols * side}")
    return np.repeat(lines, side).view(bool).reshape(batch, rows * side * cols * side)
