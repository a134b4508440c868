"""A Transformer block of a text tower: timm's modules and weight names, run on rows of tokens.

The tokens of all captions are one table of rows ``[r, d]``: norms and linear layers do not care which caption a row
belongs to, only attention does. So rows that nothing reads (padding after the end of a causal caption) can be left out
of everything but attention, and the last block can be asked for one row per caption.
"""

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from unveil_backbones._timm import Attention, Block
from unveil_backbones.text_config import TextConfig

__all__ = ["Layout", "TextBlock"]


class _QuickGelu(nn.Module):
    """``x * sigmoid(1.702 x)``."""

    def forward(self, x: Float[Tensor, "*_"]) -> Float[Tensor, "*_"]:
        return x * torch.sigmoid(1.702 * x)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Which rows the table holds, which token each caption is pooled at, and who attends whom."""

    captions: int
    """Number of captions ``b``."""
    length: int
    """Tokens per caption ``t`` in attention."""
    pooled: Int64[Tensor, " b"]
    """Row of each caption's pooled token."""
    rows: Int64[Tensor, " r"] | None = None
    """Cells of the ``b * t`` grid that the table holds, ascending; all of them if ``None``."""
    causal: bool = False
    """Whether tokens see themselves and those before them only."""
    keys: Bool[Tensor, "b t"] | None = None
    """Tokens that may be seen (bidirectional), or that the pooled token sees (causal); all of them if ``None``."""

    def spread(self, table: Float[Tensor, "r c"]) -> Float[Tensor, "b t c"]:
        """Put the rows into the grid, zeros where there is none."""
        if self.rows is not None:
            empty = table.new_zeros(self.captions * self.length, table.shape[1])
            table = empty.index_copy(0, self.rows, table)
        return table.unflatten(0, (self.captions, self.length))

    def collect(self, grid: Float[Tensor, "b t c"]) -> Float[Tensor, "r c"]:
        """Undo ``spread``."""
        table = grid.flatten(0, 1)
        return table if self.rows is None else table[self.rows]

    def key_mask(self) -> Bool[Tensor, "b 1 1 t"] | None:
        """``keys`` as scaled dot-product attention takes it."""
        return None if self.keys is None else self.keys[:, None, None]


class TextBlock(Block):
    """timm's pre-norm block on a table of rows.

    Args:
        config: The tower's shape.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__(
            config.width,
            config.num_heads,
            config.mlp_ratio,
            qkv_bias=True,
            act_layer=_QuickGelu if config.activation == "quick_gelu" else nn.GELU,
            # timm calls it and annotates a class; a function that makes the layer does as well.
            norm_layer=cast("type[nn.Module]", partial(nn.LayerNorm, eps=config.norm_epsilon)),
        )

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, table: Float[Tensor, "r d"], layout: Layout, pooled_only: bool = False
    ) -> Float[Tensor, "q d"]:
        """Return the block's output for all rows (``q = r``), or for the pooled rows alone (``q = b``).

        Args:
            table: Rows of tokens.
            layout: Where they belong.
            pooled_only: Whether to compute ``result[layout.pooled]`` only; the same values for less work.
        """
        if pooled_only:
            attended, kept = self._attend_pooled(self.norm1(table), layout), table[layout.pooled]
        else:
            attended, kept = self._attend(self.norm1(table), layout), table
        kept = kept + self._attention.proj(attended)
        return kept + self.mlp(self.norm2(kept))

    @property
    def _attention(self) -> Attention:
        return cast(Attention, self.attn)

    def _attend(self, table: Float[Tensor, "r d"], layout: Layout) -> Float[Tensor, "r d"]:
        query, key, value = self._heads(layout.spread(self._attention.qkv(table)), 3)
        mask = None if layout.causal else layout.key_mask()
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=layout.causal)
        return layout.collect(mixed.transpose(1, 2).flatten(2))

    def _attend_pooled(self, table: Float[Tensor, "r d"], layout: Layout) -> Float[Tensor, "b d"]:
        weight, bias, width = self._attention.qkv.weight, self._attention.qkv.bias, table.shape[1]
        asked = nn.functional.linear(table[layout.pooled], weight[:width], bias[:width])
        (query,) = self._heads(asked[:, None], 1)
        key, value = self._heads(layout.spread(nn.functional.linear(table, weight[width:], bias[width:])), 2)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=layout.key_mask())
        return mixed.transpose(1, 2).flatten(1)

    def _heads(self, grid: Float[Tensor, "b t c"], parts: int) -> tuple[Float[Tensor, "b h t e"], ...]:
        """Split the last axis into parts (query, key, value) and heads."""
        split = grid.unflatten(2, (parts, self._attention.num_heads, -1))
        return split.permute(2, 0, 3, 1, 4).unbind(0)
