"""Stages, blocks and mergings of Swin Transformer V2 that hold timm's modules and run on tokens in any order.

They adopt the children of timm's modules, so that the names of all weights are timm's, and hold nothing that depends on
the size of the image: that comes with every call as a plan. Shapes: ``b`` images, ``n`` tokens, ``c`` channels.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int64
from torch import Tensor, nn

from unveil_backbones._timm import SwinTransformerV2Stage
from unveil_backbones.swin_attention import Kind, attend_rows, choose, cosine_attention, reorder
from unveil_backbones.swin_bias import bias_of_pairs, position_bias, position_tables
from unveil_backbones.swin_windows import BiasGeometry, BlockPlan, StagePlan

__all__ = ["Run", "SwinBlock", "SwinStage"]

Run = Callable[..., Tensor]
"""Runs a block on tensors, possibly forgetting its inner activations."""


class SwinAttention(nn.Module):
    """Window attention on timm's weights."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.logit_scale = cast(nn.Parameter, attention.logit_scale)
        self.q_bias = cast(nn.Parameter, attention.q_bias)
        self.v_bias = cast(nn.Parameter, attention.v_bias)
        self.cpb_mlp = cast(nn.Sequential, attention.cpb_mlp)
        self.qkv = cast(nn.Linear, attention.qkv)
        self.proj = cast(nn.Linear, attention.proj)
        self.num_heads = len(self.logit_scale)

    def forward(
        self, tokens: Float[Tensor, "b n c"], plan: BlockPlan, bias: Float[Tensor, "h t t"], *, kind: Kind
    ) -> Float[Tensor, "b n c"]:
        """Attend within windows; tokens are in window order."""
        by_head = self.project(tokens).view(len(tokens) * plan.num_windows, bias.shape[-1], 3, self.num_heads, -1)
        attended = cosine_attention(by_head, self.logit_scale, bias, plan.regions, kind=kind)
        return self.proj(attended.view(tokens.shape))

    def project(self, tokens: Float[Tensor, "*b c"]) -> Float[Tensor, "*b e"]:
        """Queries, keys and values of tokens, one after the other; ``e = 3c``."""
        return F.linear(tokens, self.qkv.weight, torch.cat((self.q_bias, self._key_value_bias())))

    def at(
        self, tokens: Float[Tensor, "b n c"], bias: Float[Tensor, "h n n"], places: Int64[Tensor, "b r"]
    ) -> Float[Tensor, "b r c"]:
        """Attend from some tokens to all, where one window covers the image."""
        width = tokens.shape[-1]
        asking = torch.take_along_dim(tokens, places[:, :, None], 1)
        query = F.linear(asking, self.qkv.weight[:width], self.q_bias)
        key_value = F.linear(tokens, self.qkv.weight[width:], self._key_value_bias())
        heads = (self.num_heads, width // self.num_heads)
        attended = attend_rows(
            query.unflatten(2, heads), key_value.unflatten(2, (2, *heads)), self.logit_scale, bias, places
        )
        return self.proj(attended)

    def bias(self, table: Float[Tensor, "h s"] | None, plan: BlockPlan) -> Float[Tensor, "h t t"]:
        """Position bias of every pair, from the stage's table or, without it, from the block's own network."""
        if table is not None:
            return bias_of_pairs(table, plan.geometry)
        return position_bias(self.cpb_mlp, plan.geometry, self.num_heads)

    def _key_value_bias(self) -> Tensor:
        return torch.cat((torch.zeros_like(self.q_bias), self.v_bias))


class SwinBlock(nn.Module):
    """Attention and MLP, each with its norm after it and a residual around both."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.attn = SwinAttention(cast(nn.Module, block.attn))
        self.norm1 = cast(nn.LayerNorm, block.norm1)
        self.drop_path1 = cast(nn.Module, block.drop_path1)
        self.mlp = cast(nn.Module, block.mlp)
        self.norm2 = cast(nn.LayerNorm, block.norm2)
        self.drop_path2 = cast(nn.Module, block.drop_path2)

    def forward(
        self,
        tokens: Float[Tensor, "b n c"],
        table: Float[Tensor, "h s"] | None,
        *,
        plan: BlockPlan,
        kind: Kind,
        places: Int64[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b r c"]:
        """Run the block; tokens come and go in the order of the plan.

        Args:
            tokens: All tokens.
            table: The stage's position biases for this block, if it computes them.
            plan: Where the windows are.
            kind: How attention is computed.
            places: Where one window covers the image: tokens whose results are wanted; ``None`` for all.
        """
        bias = self.attn.bias(table, plan)
        if places is not None:
            attended = self.attn.at(tokens, bias, places)
            tokens = torch.take_along_dim(tokens, places[:, :, None], 1)
        elif plan.into is None or plan.back is None:
            attended = self.attn(tokens, plan, bias, kind=kind)
        else:
            windows = F.pad(tokens, (0, 0, 0, 1)).index_select(1, plan.into)
            attended = self.attn(windows, plan, bias, kind=kind).index_select(1, plan.back)
        tokens = tokens + self.drop_path1(self.norm1(attended))
        return tokens + self.drop_path2(self.norm2(self.mlp(tokens)))


class SwinMerging(nn.Module):
    """Four neighbouring tokens become one of twice the width."""

    def __init__(self, merging: nn.Module) -> None:
        super().__init__()
        self.reduction = cast(nn.Linear, merging.reduction)
        self.norm = cast(nn.LayerNorm, merging.norm)

    def forward(self, tokens: Float[Tensor, "b n c"], plan: StagePlan) -> Float[Tensor, "b m e"]:
        """Merge; ``m = n / 4``, ``e = 2c``."""
        if plan.merge_grid is None:
            groups = reorder(tokens, plan.merge).unflatten(1, (-1, 4)).flatten(2)
        else:
            rows, cols = plan.grid
            squares = tokens.unflatten(1, (rows, 2, cols, 2))
            groups = squares.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)
        return self.norm(self.reduction(groups))


class SwinStage(nn.Module):
    """Merging, where there is one, and the blocks of one width."""

    def __init__(self, stage: SwinTransformerV2Stage) -> None:
        super().__init__()
        merging = cast(nn.Module, stage.downsample)
        self.downsample = nn.Identity() if isinstance(merging, nn.Identity) else SwinMerging(merging)
        self.blocks = nn.ModuleList(SwinBlock(block) for block in cast(nn.ModuleList, stage.blocks))

    def forward(
        self,
        tokens: Float[Tensor, "b n c"],
        plan: StagePlan,
        optimisations: Collection[str],
        run: Run,
        places: Int64[Tensor, "b r"] | None = None,
    ) -> Float[Tensor, "b m e"]:
        """Run the stage.

        Tokens come in raster order or the order of the stage before, as planned, and leave in the last block's order.

        Args:
            tokens: All tokens.
            plan: Orders and windows.
            optimisations: Names out of ``SwinEncoder.OPTIMISATIONS``.
            run: Runs a block.
            places: Where one window covers the image: tokens wanted from the last block; ``None`` for all.
        """
        if isinstance(self.downsample, SwinMerging):
            tokens = self.downsample(tokens, plan)
        kind = choose(optimisations, tokens.device)
        tables = self.tables(plan.blocks[0].geometry) if "stage_bias" in optimisations else None
        # Unbound at once: the gradient of an index per block would fill a stack of zeros for every block.
        each = (None,) * len(self.blocks) if tables is None else tables.unbind(0)
        for index, (block, block_plan, table) in enumerate(zip(self.blocks, plan.blocks, each, strict=True)):
            tokens = reorder(tokens, block_plan.before)
            wanted = places if index == len(self.blocks) - 1 else None
            tokens = run(partial(block, plan=block_plan, kind=kind, places=wanted), tokens, table)
        return tokens

    def tables(self, geometry: BiasGeometry) -> Float[Tensor, "l h s"] | None:
        """Position biases of all blocks; ``None`` where a block's weights are there only while the block runs.

        FSDP shards parameters as a subclass of Tensor and gathers them for the block's own forward pass alone.
        """
        networks = [cast(SwinBlock, block).attn.cpb_mlp for block in self.blocks]
        if any(type(weight) not in (nn.Parameter, Tensor) for network in networks for weight in network.parameters()):
            return None
        return position_tables(networks, geometry)
