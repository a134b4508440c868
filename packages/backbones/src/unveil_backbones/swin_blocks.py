"""Stages, blocks and mergings of Swin Transformer V2 that hold timm's modules and run on tokens in any order.

They adopt the children of timm's modules, so that the names of all weights are timm's, and hold nothing that depends on
the size of the image: that comes with every call as a plan. Shapes: ``b`` images, ``n`` tokens, ``c`` channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from unveil_backbones._timm import SwinTransformerV2Stage
from unveil_backbones.swin_attention import cosine_attention, position_bias, position_biases, reorder
from unveil_backbones.swin_windows import BlockPlan, StagePlan

__all__ = ["Run", "StageOptions", "SwinBlock", "SwinStage"]

Run = Callable[..., Tensor]
"""Runs a block on tensors, possibly forgetting its inner activations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageOptions:
    """Which of the optimisations a stage takes part in."""

    stage_bias: bool
    """Position biases of all blocks at once."""
    fused_attention: bool
    """Attention with its own gradient on a CPU."""


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
        self, tokens: Float[Tensor, "b n c"], plan: BlockPlan, bias: Float[Tensor, "h t t"] | None, *, fused: bool
    ) -> Float[Tensor, "b n c"]:
        """Attend within windows; tokens are in window order."""
        if bias is None:
            bias = position_bias(self.cpb_mlp, plan.geometry, self.num_heads)
        qkv_bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = F.linear(tokens, self.qkv.weight, qkv_bias)
        by_head = qkv.view(len(tokens) * plan.num_windows, bias.shape[-1], 3, self.num_heads, -1)
        attended = cosine_attention(by_head, self.logit_scale, bias, plan.regions, fused=fused)
        return self.proj(attended.view(tokens.shape))


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
        bias: Float[Tensor, "h t t"] | None,
        *,
        plan: BlockPlan,
        fused: bool,
    ) -> Float[Tensor, "b n c"]:
        """Run the block; tokens come and go in the order of the plan."""
        if plan.into is None or plan.back is None:
            attended = self.attn(tokens, plan, bias, fused=fused)
        else:
            windows = F.pad(tokens, (0, 0, 0, 1)).index_select(1, plan.into)
            attended = self.attn(windows, plan, bias, fused=fused).index_select(1, plan.back)
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
        self, tokens: Float[Tensor, "b n c"], plan: StagePlan, options: StageOptions, run: Run
    ) -> Float[Tensor, "b m e"]:
        """Run the stage.

        Tokens come in raster order or the order of the stage before, as planned, and leave in the last block's order.
        """
        if isinstance(self.downsample, SwinMerging):
            tokens = self.downsample(tokens, plan)
        biases = self._biases(plan) if options.stage_bias else None
        for index, (block, block_plan) in enumerate(zip(self.blocks, plan.blocks, strict=True)):
            tokens = reorder(tokens, block_plan.before)
            bias = None if biases is None else biases[index]
            tokens = run(partial(block, plan=block_plan, fused=options.fused_attention), tokens, bias)
        return tokens

    def _biases(self, plan: StagePlan) -> Tensor | None:
        """Position biases of all blocks; ``None`` where a block's weights are there only while the block runs.

        FSDP shards parameters as a subclass of Tensor and gathers them for the block's own forward pass alone.
        """
        networks = [cast(SwinBlock, block).attn.cpb_mlp for block in self.blocks]
        if any(type(weight) not in (nn.Parameter, Tensor) for network in networks for weight in network.parameters()):
            return None
        return position_biases(networks, plan.blocks[0].geometry)
