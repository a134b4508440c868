"""Vision Transformer for clips with joint space-time attention, on timm's blocks (VideoMAE, arXiv 2203.12602).

A token is a cube of ``tubelet x patch_size x patch_size`` pixels; the blocks do not tell space from time. Tokens are
numbered slot by slot, each slot in raster order, which is the order of ``unveil_masking``'s clip grids. The state dict
has timm's names, with a projection of three axes; positions are computed (``position_clip.py``).

Shapes: ``b`` clips, ``c t h w`` pixels, ``n`` tokens, ``k`` kept ones, ``d`` their width, ``f r s`` temporal slots,
rows and columns of tokens.
"""

from collections.abc import Collection
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from unveil_backbones._timm import LayerNorm
from unveil_backbones.base import Encoder
from unveil_backbones.errors import ImageSizeError, TokenCountError
from unveil_backbones.position_clip import clip_position
from unveil_backbones.specs import EncoderSpec
from unveil_backbones.vit_attention import VitAttention, VitBlock
from unveil_backbones.vit_video_config import VideoVitConfig

__all__ = ["VideoVitConfig", "VideoVitEncoder", "cubes_of"]


class VideoVitEncoder(Encoder):
    """A Vision Transformer for clips whose ``encode`` takes any part of the tokens.

    What an image encoder takes as images is ``[b, c, t, h, w]`` here, and the grid of the tokens has three sides:
    ``clip_grid`` returns it. ``grid(height, width)`` are the rows and columns of one temporal slot.

    Args:
        config: Its shape.
        name: Name of the architecture in the spec.

    Attributes:
        tubelet: Frames of a token's cube.
    """

    OPTIMISATIONS: ClassVar = MappingProxyType(
        {
            "kept_patches": "With `keep`, only the pixels of kept cubes are gathered and projected.",
            "explicit_attention": "On a CPU, few tokens attend by two batched products with few saved tensors.",
        }
    )

    accepts_subset = True
    base_position: Tensor

    def __init__(self, config: VideoVitConfig, name: str = "vit_video") -> None:
        super().__init__()
        self._config = config
        self.spec = EncoderSpec(name, config.to_json())
        self.width = self.embed_width = config.width
        self.patch_size = self.stride = config.patch_size
        self.tubelet = config.tubelet
        self.feature_channels = (config.width,)
        self.feature_strides = (config.patch_size,)
        self.num_prefix_tokens = 0
        self.patch_embed = _CubeProjection(config)
        norm: Any = partial(LayerNorm, eps=config.norm_epsilon)  # timm says it takes a type
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.Sequential(
            *(
                VitBlock(
                    config.width,
                    config.num_heads,
                    mlp_ratio=config.mlp_ratio,
                    qkv_bias=True,
                    drop_path=rate,
                    norm_layer=norm,
                    attn_layer=VitAttention,
                )
                for rate in rates
            )
        )
        self.norm = LayerNorm(config.width, eps=config.norm_epsilon)
        self._base_grid = self.clip_grid(config.num_frames, *config.image_size)
        self.register_buffer("base_position", clip_position(self._base_grid, config.width), persistent=False)
        self._initialise()

    @property
    def config(self) -> VideoVitConfig:
        """The typed configuration."""
        return self._config

    def set_optimisations(self, names: Collection[str]) -> None:
        """Use these optimisations and no others.

        Raises:
            ConfigError: A name is unknown.
        """
        super().set_optimisations(names)
        for module in self.modules():
            if isinstance(module, VitAttention):
                module.explicit = "explicit_attention" in names

    def clip_grid(self, num_frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return temporal slots, rows and columns of ``embed``'s tokens for a clip of this size.

        Raises:
            ImageSizeError: The frames are no whole number of tubelets, or a side is not a multiple of the patch.
        """
        rows, cols = self.grid(height, width)
        if num_frames < 1 or num_frames % self.tubelet:
            below = num_frames // self.tubelet * self.tubelet
            near = f"{below} or {below + self.tubelet}" if below > 0 else f"{self.tubelet}"
            raise ImageSizeError(
                f"{self.spec.name} got a clip of {num_frames} frames; it takes multiples of {self.tubelet}; "
                f"take {near} frames"
            )
        return num_frames // self.tubelet, rows, cols

    def embed(
        self, images: Float[Tensor, "b c t h w"], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Turn clips into tokens with their positions added, slot by slot in raster order or in the order of ``keep``.

        Args:
            images: Pixels of the clips.
            keep: Indices of the tokens that are wanted, in any order; all of them if ``None``.

        Raises:
            ImageSizeError: The frames or a side do not fit, or these are images.
            TokenCountError: ``keep`` names more tokens than there are.
        """
        grid = self._grid_of(images)
        self._check_keep(keep, grid)
        position = self.positions(grid)
        cubes = cubes_of(images, self.tubelet, self.patch_size)
        if keep is None:
            tokens = self.patch_embed(cubes.flatten(1, 3).flatten(2))
            return tokens + position.to(tokens.dtype)
        sample = torch.arange(images.shape[0], device=images.device)[:, None]
        if "kept_patches" in self._optimisations:
            _, rows, cols = grid
            tokens = self.patch_embed(cubes[sample, keep // (rows * cols), keep // cols % rows, keep % cols].flatten(2))
            return tokens + nn.functional.embedding(keep, position).to(tokens.dtype)
        tokens = self.patch_embed(cubes.flatten(1, 3).flatten(2))
        return (tokens + position.to(tokens.dtype))[sample, keep]

    def positions(self, grid: tuple[int, ...]) -> Float[Tensor, "n d"]:
        """Return the fixed position of each cube, for any grid of three sides.

        Raises:
            TokenCountError: The grid is that of an image.
        """
        sides = self._three_sides(grid)
        if sides == self._base_grid:
            return self.base_position
        return clip_position(sides, self.width, base=self._base_grid, device=self.base_position.device)

    def encode(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, ...], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Run the blocks and the final norm.

        Args:
            tokens: Any part of what ``embed`` returned, in any order: positions are already in the tokens.
            grid: Temporal slots, rows and columns of the whole clip's tokens.
            keep: Not needed; if it is there, it has one entry for each token.

        Raises:
            TokenCountError: There are more tokens than the grid has, or not as many as ``keep`` has entries, or the
                grid is that of an image.
        """
        self._check_tokens(tokens, self._three_sides(grid), keep)
        for block in self.blocks:
            tokens = self._run(block, tokens)
        return self.norm(tokens)

    def encode_at(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, ...], places: Int64[Tensor, "b r"]
    ) -> Float[Tensor, "b r d"]:
        """Return ``encode(tokens, grid)`` at some places.

        Raises:
            TokenCountError: As ``encode``.
        """
        return torch.take_along_dim(self.encode(tokens, grid), places[:, :, None], 1)

    def encode_pooled(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, ...], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b d"]:
        """Return the mean of ``encode(tokens, grid, keep)``.

        Raises:
            TokenCountError: As ``encode``.
        """
        return self.pool(self.encode(tokens, grid, keep))

    def forward(self, images: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d"]:
        """Return one vector per clip: the mean of its tokens."""
        return self.pool(self._encode_whole(images))

    def features(self, images: Float[Tensor, "b c t h w"]) -> list[Float[Tensor, "b d f r s"]]:
        """Return one map at the stride of the cubes: channels, temporal slots, rows, columns."""
        tokens = self._encode_whole(images)
        return [tokens.transpose(1, 2).unflatten(2, self._grid_of(images)).contiguous()]

    def layer_groups(self) -> list[list[str]]:
        """Return one group for the projection, one per block, one for the final norm."""
        names = [name for name, _ in self.named_parameters()]
        prefixes = ["patch_embed.", *(f"blocks.{index}." for index in range(len(self.blocks))), "norm."]
        return [[name for name in names if name.startswith(prefix)] for prefix in prefixes]

    def _encode_whole(self, images: Tensor) -> Tensor:
        return self.encode(self.embed(images), self._grid_of(images))

    def _grid_of(self, images: Tensor) -> tuple[int, int, int]:
        if images.dim() != 5:
            raise ImageSizeError(
                f"{self.spec.name} got pixels of shape {tuple(images.shape)}; it takes clips: batch, channels, frames, "
                "height, width; give a sequence of frames, or choose an encoder of images"
            )
        return self.clip_grid(images.shape[2], images.shape[3], images.shape[4])

    def _three_sides(self, grid: tuple[int, ...]) -> tuple[int, int, int]:
        if len(grid) != 3:
            raise TokenCountError(
                f"{self.spec.name} got the grid {grid}; a clip's has three sides: temporal slots, rows, columns; "
                "pass what `encoder.clip_grid(num_frames, height, width)` returns"
            )
        return grid[0], grid[1], grid[2]

    def _initialise(self) -> None:
        """Xavier everywhere, as VideoMAE; the projection is seen as a linear layer, as in MAE."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        weight = self.patch_embed.proj.weight
        nn.init.xavier_uniform_(weight.data.view(weight.shape[0], -1))
        if self.patch_embed.proj.bias is not None:
            nn.init.zeros_(self.patch_embed.proj.bias)


class _CubeProjection(nn.Module):
    """From the pixels of cubes to tokens; its weight has the shape of a convolution over three axes.

    Cubes do not overlap, so the convolution is a product with every cube's pixels.
    """

    def __init__(self, config: VideoVitConfig) -> None:
        super().__init__()
        sides = (config.tubelet, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(3, config.width, kernel_size=sides, stride=sides)

    def forward(self, cubes: Float[Tensor, "b k p"]) -> Float[Tensor, "b k d"]:
        return nn.functional.linear(cubes, self.proj.weight.flatten(1), self.proj.bias)


def cubes_of(clips: Float[Tensor, "b c t h w"], tubelet: int, patch_size: int) -> Float[Tensor, "b f r s c u p q"]:
    """Return a view of the pixels by cubes: temporal slot, row and column of the cube, channel, place inside.

    Args:
        clips: Pixels.
        tubelet: Frames of a cube; divides ``t``.
        patch_size: Side of a cube; divides ``h`` and ``w``.
    """
    cut = clips.unflatten(4, (-1, patch_size)).unflatten(3, (-1, patch_size)).unflatten(2, (-1, tubelet))
    return cut.permute(0, 2, 4, 6, 1, 3, 5, 7)
