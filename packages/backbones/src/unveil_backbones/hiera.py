"""Hiera (Ryali et al., arXiv 2306.00989) on timm's modules: a hierarchical encoder that can leave hidden units out.

Tokens are 4 pixels apart; what is hidden are units of 8 x 8 tokens (32 x 32 pixels), which no pooling and no local
attention crosses. ``encode`` therefore takes any part of the units, and returns one token for each.

As in timm, the final norm follows the pooling and is called ``head.norm``: ``encode`` returns the last block's output,
``encode_pooled`` and ``pool`` apply the norm.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import interpolate

from unveil_backbones._timm import Hiera
from unveil_backbones.base import Encoder, Pooling, undecayed
from unveil_backbones.hiera_config import MASK_UNIT, NUM_STAGES, PATCH_STRIDE, UNIT_PIXELS, HieraConfig
from unveil_backbones.hiera_units import check_units, kept_mask, unit_order, units_first, units_to_map
from unveil_backbones.position import resampled_position
from unveil_backbones.specs import EncoderSpec

__all__ = ["HieraConfig", "HieraEncoder"]


class HieraEncoder(Encoder):
    """A Hiera whose ``encode`` takes any mask units.

    Args:
        config: Its shape.
        name: Name of the architecture in the spec.
    """

    accepts_subset = True
    needs_keep = True
    mask_unit = MASK_UNIT
    num_prefix_tokens = 0

    def __init__(self, config: HieraConfig, name: str = "hiera") -> None:
        super().__init__()
        self._config = config
        self.spec = EncoderSpec(name, config.to_json())
        self.embed_width = config.width
        self.width = config.width * 2 ** (NUM_STAGES - 1)
        self.patch_size = PATCH_STRIDE
        self.stride = UNIT_PIXELS
        self.feature_channels = tuple(config.width * 2**stage for stage in range(NUM_STAGES))
        self.feature_strides = tuple(PATCH_STRIDE * 2**stage for stage in range(NUM_STAGES))
        self._base_grid = self.grid(*config.image_size)
        self._last_blocks = tuple(sum(config.depths[: stage + 1]) - 1 for stage in range(NUM_STAGES))
        body = _timm_body(config)
        # Adopting the children, not the model, keeps timm's names; timm's own unrolling knows one image size only.
        self.patch_embed = body.patch_embed
        self.pos_embed = cast(nn.Parameter, body.pos_embed)
        self.pos_embed_win = body.pos_embed_win
        self.blocks = body.blocks
        self.head = nn.ModuleDict({"norm": cast(nn.Module, body.head.norm)})

    @property
    def config(self) -> HieraConfig:
        """The typed configuration."""
        return self._config

    def embed(
        self, images: Float[Tensor, "b c h w"], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Turn images into tokens with their positions added, in raster order or in the order of ``keep``.

        Patches overlap, so with ``keep`` the pixels of hidden units are zeros: nothing of them reaches a kept token.

        Raises:
            ImageSizeError: A side is not a multiple of 32.
            TokenCountError: ``keep`` names more tokens than there are.
            KeepError: ``keep`` has incomplete mask units.
        """
        grid = self.grid(images.shape[-2], images.shape[-1])
        self._check_keep(keep, grid)
        if keep is not None:
            check_units(keep, grid)
            seen = kept_mask(keep, grid).repeat_interleave(PATCH_STRIDE, 2).repeat_interleave(PATCH_STRIDE, 3)
            images = images * seen
        tokens = self.patch_embed(images)
        tokens = tokens + self._position(grid).to(tokens.dtype)
        return tokens if keep is None else torch.take_along_dim(tokens, keep[:, :, None], 1)

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "n d"]:
        """Return the position of each token; patches overlap, so a replaced token still shows in its neighbours."""
        return self._position(grid)

    def encode(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b m e"]:
        """Run the four stages; ``m = n / 64`` tokens of width ``e = 8C``, one for each unit.

        Args:
            tokens: What ``embed`` returned.
            grid: Rows and columns of the whole image's tokens.
            keep: Raster index of each of ``tokens``, of whole units in any order; all in raster order if ``None``.

        Returns:
            The units' tokens in raster order of the units, whatever the order of ``keep``; no norm is applied.

        Raises:
            TokenCountError: The number of tokens does not fit the grid, or that of ``keep``.
            KeepError: A part of the tokens came without ``keep``, or ``keep`` has incomplete mask units.
        """
        self._check_tokens(tokens, grid, keep)
        if keep is not None:
            check_units(keep, grid)
        return self._stages(tokens, grid, keep)[-1]

    def pool(self, tokens: Float[Tensor, "b m e"], pooling: Pooling | None = None) -> Float[Tensor, "b e"]:
        """Return the norm of the units' mean; there is no other pooling."""
        return self.head["norm"](tokens.mean(dim=1))

    def features(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the four stages' outputs, without a norm."""
        grid = self.grid(images.shape[-2], images.shape[-1])
        return [
            units_to_map(output, grid, stage).permute(0, 3, 1, 2).contiguous()
            for stage, output in enumerate(self._stages(self.embed(images), grid, None))
        ]

    def intermediates(self, images: Float[Tensor, "b c h w"], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the outputs of the named layers for whole images.

        Those of blocks (``blocks.1``) are maps ``[b, rows, cols, c]``; those of modules inside keep the blocks' order.

        Raises:
            UnknownLayerError: No module has such a path, or it did not run, or its output is not one tensor.
        """
        found = super().intermediates(images, names)
        grid = self.grid(images.shape[-2], images.shape[-1])
        return {
            name: value if self._stage(name) is None else units_to_map(value, grid, cast(int, self._stage(name)))
            for name, value in found.items()
        }

    def layer_groups(self) -> list[list[str]]:
        """Return one group for patches and positions, one per block, one for the final norm.

        The pooling and the projection to a stage's width are inside of its first block, as in timm.
        """
        names = [name for name, _ in self.named_parameters()]
        prefixes = [("patch_embed.", "pos_embed"), *((f"blocks.{i}.",) for i in range(len(self.blocks))), ("head.",)]
        return [[name for name in names if name.startswith(group)] for group in prefixes]

    def no_weight_decay(self) -> frozenset[str]:
        """Return biases, norms, layer scales and positions."""
        return undecayed(self, ("pos_embed",))

    def _stages(self, tokens: Tensor, grid: tuple[int, int], keep: Tensor | None) -> list[Tensor]:
        """Output of each stage's last block, in the order of units."""
        if keep is None:
            tokens = units_first(tokens, grid)
        else:
            tokens = torch.take_along_dim(tokens, unit_order(keep, grid)[:, :, None], 1)
        outputs = []
        for index, block in enumerate(self.blocks):
            tokens = self._run(block, tokens)
            if index in self._last_blocks:
                outputs.append(tokens)
        return outputs

    def _stage(self, name: str) -> int | None:
        """Stage of a block by its module path; ``None`` for other modules."""
        parent, _, last = name.rpartition(".")
        if parent != "blocks":
            return None
        return sum(int(last) > end for end in self._last_blocks)

    def _position(self, grid: tuple[int, int]) -> Float[Tensor, "n d"]:
        if self.pos_embed_win is None:
            return resampled_position(self.pos_embed[0], self._base_grid, grid)
        units = (grid[0] // MASK_UNIT, grid[1] // MASK_UNIT)
        coarse = interpolate(self.pos_embed.float(), size=grid, mode="bicubic", antialias=True)
        return (coarse + self.pos_embed_win.tile(units))[0].flatten(1).T


def _timm_body(config: HieraConfig) -> Hiera:
    return Hiera(
        img_size=config.image_size,
        embed_dim=config.width,
        num_heads=config.num_heads,
        num_classes=0,
        stages=config.depths,
        mlp_ratio=config.mlp_ratio,
        drop_path_rate=config.drop_path,
        init_values=config.layer_scale,
        use_expand_proj=config.expand_projection,
        abs_win_pos_embed=config.position == "windowed",
        global_pos_size=config.global_grid,
    )
