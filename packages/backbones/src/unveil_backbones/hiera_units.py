"""The order of tokens inside a Hiera, in which pooling a stage is a maximum over an axis of four.

A mask unit is a square of 8 x 8 tokens. The three lowest bits of a token's row and column say where in its unit it is,
the others which unit. Sorting by (lowest bits, middle bits, highest bits, unit) puts the four tokens that the first
pooling merges furthest apart and the units nearest: pooling takes the first axis of four away, thrice.

Shapes: ``b`` images, ``n`` tokens of the whole grid, ``k = 64 u`` kept ones, ``u`` units, ``c`` channels.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from unveil_backbones.errors import KeepError
from unveil_backbones.hiera_config import MASK_UNIT, NUM_STAGES

__all__ = ["check_units", "kept_mask", "unit_order", "units_first", "units_to_map"]

_LEVELS = NUM_STAGES - 1


def units_first(tokens: Float[Tensor, "b n c"], grid: tuple[int, int]) -> Float[Tensor, "b n c"]:
    """Bring all tokens of a grid from raster order into the order of units."""
    rows, cols = grid
    bits = tokens.reshape(-1, rows // MASK_UNIT, 2, 2, 2, cols // MASK_UNIT, 2, 2, 2, tokens.shape[2])
    # Axes: b, unit row, high, middle, low, unit column, high, middle, low, c.
    return bits.permute(0, 4, 8, 3, 7, 2, 6, 1, 5, 9).flatten(1, 8)


def units_to_map(tokens: Float[Tensor, "b m c"], grid: tuple[int, int], stage: int) -> Float[Tensor, "b _ _ c"]:
    """Bring the tokens of a stage (0 to 3) of a whole image from the order of units into a map.

    Args:
        tokens: Output of a block of the stage.
        grid: Rows and columns of the first stage.
        stage: How often the tokens were pooled.
    """
    left = _LEVELS - stage
    rows, cols = grid[0] // MASK_UNIT, grid[1] // MASK_UNIT
    bits = tokens.reshape(-1, *(2,) * (2 * left), rows, cols, tokens.shape[2])
    # Axes: b, (row bit, column bit) from the lowest to the highest, unit row, unit column, c.
    row_bits = [1 + 2 * level for level in reversed(range(left))]
    col_bits = [2 + 2 * level for level in reversed(range(left))]
    unit_row = 1 + 2 * left
    order = [0, unit_row, *row_bits, unit_row + 1, *col_bits, unit_row + 2]
    return bits.permute(order).reshape(-1, rows << left, cols << left, tokens.shape[2])


def unit_order(keep: Int64[Tensor, "b k"], grid: tuple[int, int]) -> Int64[Tensor, "b k"]:
    """Return which of the kept tokens comes at each place of the order of units; units in raster order.

    Args:
        keep: Raster indices of tokens that make whole units, see ``check_units``.
        grid: Rows and columns of the whole image's tokens.
    """
    row, col = keep // grid[1], keep % grid[1]
    place = torch.zeros_like(keep)
    for level in range(_LEVELS):
        place = place * 4 + (row >> level & 1) * 2 + (col >> level & 1)
    unit = (row // MASK_UNIT) * (grid[1] // MASK_UNIT) + col // MASK_UNIT
    num_units = grid[0] * grid[1] // MASK_UNIT**2
    return (place * num_units + unit).argsort(dim=1)


def kept_mask(keep: Int64[Tensor, "b k"], grid: tuple[int, int]) -> Bool[Tensor, "b 1 _ _"]:
    """Return a map of the tokens, true where kept."""
    hidden = torch.zeros(keep.shape[0], grid[0] * grid[1], dtype=torch.bool, device=keep.device)
    return hidden.scatter(1, keep, True).unflatten(1, (1, *grid))


def check_units(keep: Int64[Tensor, "b k"], grid: tuple[int, int]) -> None:
    """Refuse tokens that are not whole units; where the values are not known (compiler, no data) nothing is refused.

    On a GPU the host does not wait for ``keep``: there the refusal is a device-side assertion with the same sentence.

    Raises:
        KeepError: A unit is incomplete, or a token is named twice.
    """
    if keep.device.type == "meta" or torch.compiler.is_compiling():
        return
    counts = torch.zeros(keep.shape[0], grid[0] * grid[1], dtype=torch.int64, device=keep.device)
    counts = counts.scatter_add(1, keep, torch.ones_like(keep))
    units = counts.unflatten(1, (grid[0] // MASK_UNIT, MASK_UNIT, grid[1] // MASK_UNIT, MASK_UNIT))
    fewest, most = units.amin(dim=(2, 4)), units.amax(dim=(2, 4))
    whole = ((fewest == most) & (most <= 1)).all()
    message = (
        f"`keep` names {keep.shape[1]} tokens that are not whole mask units; units are squares of {MASK_UNIT} x "
        f"{MASK_UNIT} tokens, each token once; mask by units of {MASK_UNIT} tokens (`encoder.mask_unit`)"
    )
    if keep.device.type != "cpu":
        torch.ops.aten._assert_async.msg(whole, message)
    elif not whole:
        raise KeepError(message)
