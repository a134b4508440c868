"""Position embeddings: fixed two-dimensional sine-cosine (MAE, arXiv 2111.06377, appendix A.1), and learned tables.

Half of the channels encode the column and half the row, each as ``[sin(x w_0), sin(x w_1), ..., cos(x w_0), ...]`` with
``w_i = 10000 ** (-i / (d / 4))``: the layout of the released MAE weights, which were trained on square grids.

On a grid other than the one of pre-training the same image content has to stay where it was, so coordinates are
stretched: cell centres of the new grid are expressed in cells of the base grid. This is what MAE's fine-tuning recipes
do by resampling the embedding, without the resampling error; on the base grid itself the coordinates are the integers.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from unveil_backbones.errors import ConfigError

__all__ = ["resampled_position", "sin_cos_position", "stretched"]


def sin_cos_position(
    rows: int, cols: int, width: int, *, base_rows: int, base_cols: int, device: torch.device | None = None
) -> Float[Tensor, "n d"]:
    """Return the embedding of every cell in raster order, ``n = rows * cols``, ``d = width``, float32.

    Args:
        rows: Rows of the grid.
        cols: Columns of the grid.
        width: Channels; a multiple of 4.
        base_rows: Rows of the grid whose cells have integer coordinates.
        base_cols: Columns of that grid.
        device: Where to make it; the default device if ``None``.

    Raises:
        ConfigError: ``width`` is not a multiple of 4.
    """
    if width % 4:
        raise ConfigError(f"width {width}; a sine-cosine position needs a multiple of 4; choose {width // 4 * 4 + 4}")
    # Double precision, as in the reference: large angles lose digits in float32.
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64, device=device) / (width // 4))
    row = _waves(stretched(rows, base_rows, device), frequency)
    col = _waves(stretched(cols, base_cols, device), frequency)
    half = width // 2
    embedding = torch.cat([col[None].expand(rows, cols, half), row[:, None].expand(rows, cols, half)], dim=-1)
    return embedding.reshape(rows * cols, width).float()


def resampled_position(
    table: Float[Tensor, "n d"], base: tuple[int, int], grid: tuple[int, int]
) -> Float[Tensor, "m d"]:
    """Return a learned table for another grid: bicubic with antialiasing over rows and columns, as timm does.

    Args:
        table: One row per cell of ``base`` in raster order; no entries of class or register tokens.
        base: Rows and columns of the table.
        grid: Rows and columns that are wanted; ``table`` itself comes back if they are those of ``base``.

    Raises:
        ConfigError: The table has not as many entries as ``base`` has cells.
    """
    if table.shape[0] != base[0] * base[1]:
        raise ConfigError(
            f"a table of {table.shape[0]} positions for a grid of {base[0]} x {base[1]}; it needs {base[0] * base[1]}; "
            "take the entries of class and register tokens away, or give the table's own grid"
        )
    if grid == base:
        return table
    # Channels last in memory: PyTorch's other kernel does not resample a map of one column (2.13, CPU).
    maps = table.float().reshape(1, *base, -1).permute(0, 3, 1, 2)
    resampled = interpolate(maps, size=grid, mode="bicubic", antialias=True)
    return resampled[0].flatten(1).T.to(table.dtype)


def stretched(num: int, base: int, device: torch.device | None) -> Float[Tensor, " num"]:
    """Return the centres of ``num`` cells, in cells of a grid of ``base``; exactly ``0, 1, 2, ...`` if the two agree.

    Args:
        num: Cells along an axis.
        base: Cells of pre-training along the same axis.
        device: Where to make them; the default device if ``None``.
    """
    centres = torch.arange(num, dtype=torch.float64, device=device)
    return centres if num == base else (centres + 0.5) * (base / num) - 0.5


def _waves(coordinate: Tensor, frequency: Tensor) -> Tensor:
    angle = coordinate[:, None] * frequency[None, :]
    return torch.cat([angle.sin(), angle.cos()], dim=1)
