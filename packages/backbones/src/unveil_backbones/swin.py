"""Swin Transformer V2 on timm's modules, for any image whose sides are multiples of 32.

Liu et al., arXiv 2111.09883. The weights and their names are timm's, the results are timm's up to rounding. What
depends on the size of the image (orders of tokens, regions of shifted windows, distances of the position bias) is a
plan that is a function of the size, so that one encoder may run at any sizes, in turn or in threads.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, cast

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int64
from torch import Tensor, device, nn

from unveil_backbones._timm import SwinTransformerV2, SwinTransformerV2Stage
from unveil_backbones.base import Encoder, check_image_size, undecayed
from unveil_backbones.specs import EncoderSpec
from unveil_backbones.swin_attention import reorder
from unveil_backbones.swin_blocks import SwinStage
from unveil_backbones.swin_config import NUM_STAGES, SwinConfig, clamped_windows
from unveil_backbones.swin_windows import Reorder, StagePlan, make_plan

__all__ = ["SwinConfig", "SwinEncoder", "clamped_windows"]

_MAX_PLANS = 32


class SwinEncoder(Encoder):
    """A Swin Transformer V2 whose ``encode`` takes all tokens, hidden ones replaced by a mask token (SimMIM).

    Args:
        config: Its shape.
        name: Name of the architecture in the spec.
    """

    OPTIMISATIONS: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "window_order": "Tokens stay in the order of their windows; one gather leads from an order to the next.",
            "stage_bias": "Position biases of a stage are computed once per step, for distances instead of pairs.",
            "fused_attention": "The scale is folded into queries; on a CPU, attention has its own, leaner gradient.",
            "sdpa_attention": "On CUDA, attention is PyTorch's fused kernel with the position bias as its mask.",
            "triton_attention": "On CUDA, attention is our own kernel that never stores scores: slow. Off at first.",
            "last_block": "`encode_at` asks, projects and feeds forward the wanted tokens only, in the last block.",
            "merge_gather": "Patch merging reads its groups of four in one gather, whatever order they lie in.",
            "linear_embed": "Patches are cut out by a view and multiplied as one matrix instead of convolved.",
        }
    )

    UNMEASURED: ClassVar[frozenset[str]] = frozenset({"triton_attention"})

    accepts_subset = False
    num_prefix_tokens = 0

    def __init__(self, config: SwinConfig, name: str = "swinv2") -> None:
        super().__init__()
        self._config = config
        self.spec = EncoderSpec(name, config.to_json())
        self.embed_width = config.width
        self.width = config.width * 2 ** (NUM_STAGES - 1)
        self.patch_size = config.patch_size
        self.stride = config.patch_size * 2 ** (NUM_STAGES - 1)
        self.feature_channels = tuple(config.width * 2**stage for stage in range(NUM_STAGES))
        self.feature_strides = tuple(config.patch_size * 2**stage for stage in range(NUM_STAGES))
        body = SwinTransformerV2(
            img_size=config.image_size,
            patch_size=config.patch_size,
            num_classes=0,
            embed_dim=config.width,
            depths=config.depths,
            num_heads=config.num_heads,
            window_size=[(window, window) for window in config.window_sizes],
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
            # timm's annotation knows square windows only; its code takes pairs.
            pretrained_window_sizes=cast(tuple[int, ...], config.pretrained_window_sizes),
        )
        # Adopting the children, not the model, keeps timm's names; timm's own size check knows one size only.
        self.patch_embed = body.patch_embed
        self.patch_embed.strict_img_size = False
        stages = cast(nn.Sequential, body.layers)
        self.layers = nn.Sequential(*(SwinStage(cast(SwinTransformerV2Stage, stage)) for stage in stages))
        self.norm = cast(nn.LayerNorm, body.norm)
        self._plans: dict[tuple[object, ...], tuple[StagePlan, ...]] = {}

    @property
    def config(self) -> SwinConfig:
        """The typed configuration."""
        return self._config

    def embed(
        self, images: Float[Tensor, "b c h w"], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Turn images into tokens of width C in raster order.

        Raises:
            ImageSizeError: A side is not a multiple of 32.
            TokenCountError: ``keep`` was given; all tokens are needed.
        """
        grid = self.grid(images.shape[-2], images.shape[-1])
        self._check_keep(keep, grid)
        if "linear_embed" not in self.optimisations:
            return self.patch_embed(images).flatten(1, 2)
        side = self.patch_size
        patches = images.unflatten(3, (grid[1], side)).unflatten(2, (grid[0], side)).permute(0, 2, 4, 1, 3, 5)
        projection = cast(nn.Conv2d, self.patch_embed.proj)
        tokens = F.linear(
            patches.reshape(len(images), grid[0] * grid[1], -1), projection.weight.flatten(1), projection.bias
        )
        return self.patch_embed.norm(tokens)

    def encode(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b m e"]:
        """Run the four stages and the final norm; ``m = n / 64`` tokens of width ``e = 8C``, in raster order.

        Args:
            tokens: All tokens of ``embed``, some of them possibly replaced.
            grid: Rows and columns of the tokens.
            keep: Leave it out; all tokens are needed, in raster order.

        Raises:
            TokenCountError: The number of tokens is not that of the grid, or ``keep`` was given.
        """
        self._check_keep(keep, grid)
        plans = self._plan(grid, tokens.device)
        return reorder(self.norm(self._stages(tokens, grid, plans)[-1]), plans[-1].to_raster)

    def encode_at(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int], places: Int64[Tensor, "b r"]
    ) -> Float[Tensor, "b r e"]:
        """Return some tokens of ``encode``; what only the others need is left out of the last block.

        Args:
            tokens: As for ``encode``.
            grid: As for ``encode``.
            places: Indices into the tokens of ``encode``.

        Raises:
            TokenCountError: The number of tokens is not that of the grid.
        """
        plans = self._plan(grid, tokens.device)
        # Where several windows share the last grid, wanted tokens are spread unevenly over them.
        if "last_block" not in self.optimisations or plans[-1].blocks[-1].num_windows > 1:
            return super().encode_at(tokens, grid, places)
        return self.norm(self._stages(tokens, grid, plans, places)[-1])

    def features(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the four stages' outputs before merging and without the final norm, as detectors use them."""
        grid = self.grid(images.shape[-2], images.shape[-1])
        plans = self._plan(grid, images.device)
        stages = self._stages(self.embed(images), grid, plans)
        return [
            reorder(stage, plan.to_raster).unflatten(1, plan.grid).permute(0, 3, 1, 2).contiguous()
            for stage, plan in zip(stages, plans, strict=True)
        ]

    def intermediates(self, images: Float[Tensor, "b c h w"], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the outputs of the named layers for whole images.

        Those of stages (``layers.0``) and blocks (``layers.0.blocks.1``) are maps ``[b, rows, cols, c]``, as timm's;
        those of modules inside blocks keep the order of the block's windows.

        Raises:
            UnknownLayerError: No module has such a path, or it did not run, or its output is not one tensor.
        """
        found = super().intermediates(images, names)
        plans = self._plan(self.grid(images.shape[-2], images.shape[-1]), images.device)
        orders: dict[str, tuple[Reorder | None, tuple[int, int]]] = {}
        for index, plan in enumerate(plans):
            orders[f"layers.{index}"] = (plan.to_raster, plan.grid)
            orders |= {f"layers.{index}.blocks.{block}": (order, plan.grid) for block, order in enumerate(plan.orders)}
        return {
            name: reorder(value, orders[name][0]).unflatten(1, orders[name][1]) if name in orders else value
            for name, value in found.items()
        }

    def layer_groups(self) -> list[list[str]]:
        """Return one group for the patch embedding, one per block, one for the final norm.

        The merging after a stage belongs to the stage's last block; timm keeps it in the next stage as ``downsample``.
        """
        names = [name for name, _ in self.named_parameters()]
        groups = [["patch_embed."]]
        for index in range(NUM_STAGES):
            groups += [[f"layers.{index}.blocks.{block}."] for block in range(self.config.depths[index])]
            groups[-1].append(f"layers.{index + 1}.downsample.")
        groups.append(["norm."])
        return [[name for name in names if name.startswith(tuple(prefixes))] for prefixes in groups]

    def no_weight_decay(self) -> frozenset[str]:
        """Return biases, norms, the position bias networks and the attention temperatures, as SimMIM does."""
        return undecayed(self, ("cpb_mlp", "logit_scale"))

    def _stages(
        self,
        tokens: Tensor,
        grid: tuple[int, int],
        plans: tuple[StagePlan, ...],
        places: Tensor | None = None,
    ) -> list[Tensor]:
        """Output of each stage, each in the order of its last block; of the last stage only the wanted tokens."""
        self._check_count(tokens.shape[1], grid)
        outputs = []
        for stage, plan in zip(self.layers, plans, strict=True):
            wanted = places if plan is plans[-1] else None
            outputs.append(stage(tokens, plan, self.optimisations, self._run, wanted))
            tokens = reorder(outputs[-1], plan.leave)
        return outputs

    def _plan(self, grid: tuple[int, int], where: device) -> tuple[StagePlan, ...]:
        """Plan of a grid; kept, as images usually come in few sizes."""
        check_image_size(grid[0] * self.patch_size, grid[1] * self.patch_size, self.stride, self.spec.name)
        # Under a compiler sides may be symbols; counting to them makes them numbers, and one graph per grid.
        grid = (len(range(grid[0])), len(range(grid[1])))
        window_order = "window_order" in self.optimisations
        merge_gather = "merge_gather" in self.optimisations
        key = (grid, where, window_order, merge_gather)
        plan = self._plans.get(key)
        if plan is None:
            plan = make_plan(
                grid,
                self.config.window_sizes,
                self.config.pretrained_window_sizes,
                self.config.depths,
                window_order=window_order,
                merge_gather=merge_gather,
                device=where,
            )
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            self._plans[key] = plan
        return plan
