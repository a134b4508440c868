"""Grid sampling: a regular lattice of kept tokens, as in MAE (arXiv:2111.06377, figure 6) and CLIPA (2305.07017)."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from unveil_masking._arrays import arange
from unveil_masking._base import Share, Strategy, check_share
from unveil_masking._noise import noise_range
from unveil_masking.errors import GridError, KeyArrayError, UnitError
from unveil_masking.grid import Grid

__all__ = ["GridMask", "Phase"]

Phase = Literal["sample", "fixed"]
"""Where in its cell the kept token lies: drawn for each sample, or always at the top left."""


@dataclass(frozen=True, slots=True)
class GridMask(Strategy):
    """Keep one token of every `cell` × `cell` cell, always at the same place: kept = ⌈rows/cell⌉ · ⌈cols/cell⌉.

    `GridMask(2)` on `Grid(14, 14)` keeps 49 of 196 tokens, 75 % hidden. A side that the cell does not divide has a
    partial cell at its end; the phase is then drawn only from places which that partial cell has too, so that the
    count is the formula's in every sample. A cell of 1 hides nothing.

    Raises:
        UnitError: the cell is not a positive int.
        KeyArrayError: an unknown phase or way of sharing.
    """

    cell: int = 2
    """Side of a cell in tokens, at least 1; the ratio is about 1 − 1/cell²."""
    phase: Phase = "sample"
    """Where in its cell the kept token lies, see `Phase`."""
    share: Share = "sample"
    """Who shares a mask, see `Share`."""

    def __post_init__(self) -> None:
        if not isinstance(self.cell, int) or isinstance(self.cell, bool) or self.cell < 1:
            raise UnitError(f"cell={self.cell!r} is not a positive int. Give the side of a cell in tokens, such as 2.")
        if self.phase not in get_args(Phase):
            raise KeyArrayError(f"phase={self.phase!r} is unknown. Allowed: {', '.join(get_args(Phase))}.")
        check_share(self.share)

    def describe(self) -> dict[str, str | int | float]:
        """A JSON-able record of the strategy."""
        return {"strategy": "grid", "cell": self.cell, "phase": self.phase, "share": self.share}

    def _draw(self, grid: Grid, sample_ids: Any, seed: int, epoch: Any) -> Any:
        words: Any = noise_range(seed, epoch, sample_ids, 2)
        token = arange(grid.num, words)
        sides = (token // grid.cols, grid.rows), (token % grid.cols, grid.cols)
        kept = [
            place % self.cell == self._phase(words[:, axis, None], length) for axis, (place, length) in enumerate(sides)
        ]
        return ~(kept[0] & kept[1])

    def _phase(self, word: Any, length: int) -> Any:
        """int64 [b, 1] in [0, choices): multiply and shift, whose bias is below choices / 2³²."""
        choices = 1 if self.phase == "fixed" else length % self.cell or self.cell
        return (word * choices) >> 32

    def _hidden_range(self, grid: Grid) -> tuple[int, int]:
        if grid.frames > 1:
            raise GridError(
                f"GridMask keeps a lattice of one image, and the grid {grid} has {grid.frames} temporal slots. "
                'Use share="clip" for the same lattice in every slot.'
            )
        hidden = grid.num - -(-grid.rows // self.cell) * -(-grid.cols // self.cell)
        return hidden, hidden
