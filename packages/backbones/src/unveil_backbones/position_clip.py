"""Fixed positions of the tokens of a clip, as VideoMAE has them (arXiv 2203.12602): one sine-cosine over all tokens.

The tokens are numbered slot by slot, row by row, and number ``i`` has the position of Transformers for text (arXiv
1706.03762, section 3.5): channels ``2k`` and ``2k + 1`` are sine and cosine of ``i 10000 ** (-2k / d)``. Space and time
share one axis, so a row below is ``cols`` further on, and the next slot ``rows cols``.

On another grid than that of pre-training the same content has to stay where it was: centres of the new cells are
expressed in cells of the base grid, along each of the three axes, and then numbered as there.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unveil_backbones.errors import ConfigError
from unveil_backbones.position import stretched

__all__ = ["clip_position"]

ClipGrid = tuple[int, int, int]


def clip_position(
    grid: ClipGrid, width: int, *, base: ClipGrid | None = None, device: torch.device | None = None
) -> Float[Tensor, "n d"]:
    """Return the embedding of every token, slot by slot in raster order; ``n`` is the product of the sides, float32.

    Args:
        grid: Temporal slots, rows and columns.
        width: Channels ``d``; even.
        base: The grid whose tokens have whole numbers; ``grid`` itself if ``None``.
        device: Where to make it; the default device if ``None``.

    Raises:
        ConfigError: ``width`` is odd.
    """
    if width % 2:
        raise ConfigError(f"width {width}; sine and cosine need an even number of channels; choose {width + 1}")
    _, base_rows, base_cols = base or grid
    slot, row, col = (stretched(num, to, device) for num, to in zip(grid, base or grid, strict=True))
    number = slot[:, None, None] * (base_rows * base_cols) + row[:, None] * base_cols + col
    # Double precision, as in the reference: angles reach the number of tokens.
    channel = torch.arange(0, width, 2, dtype=torch.float64, device=device)
    angle = number.flatten()[:, None] * 10000.0 ** (-channel / width)
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1).float()
