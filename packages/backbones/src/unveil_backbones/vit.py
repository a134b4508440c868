"""Vision Transformer on timm's modules: by default MAE's, with the variants of CLIP and DINOv2 as settings.

MAE (He et al., arXiv 2111.06377): fixed positions, class token and initialisation. The class token's position is the
zero vector there, so nothing is added to it. The state dict has timm's names; with fixed positions it has no
``pos_embed``, because they are computed, for any grid (``position.py``).
"""

from collections.abc import Collection
from functools import partial
from types import MappingProxyType
from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from unveil_backbones._timm import LayerNorm, VisionTransformer
from unveil_backbones.base import Encoder, undecayed
from unveil_backbones.position import resampled_position, sin_cos_position
from unveil_backbones.specs import EncoderSpec
from unveil_backbones.vit_attention import VitAttention, VitBlock
from unveil_backbones.vit_config import VitConfig

__all__ = ["VitConfig", "VitEncoder", "embed_patches"]


class VitEncoder(Encoder):
    """A Vision Transformer whose ``encode`` takes any part of the tokens.

    Args:
        config: Its shape.
        name: Name of the architecture in the spec.
    """

    OPTIMISATIONS: ClassVar = MappingProxyType(
        {
            "kept_patches": "With `keep`, only the pixels of kept patches are gathered and projected.",
            "explicit_attention": "On a CPU, few tokens attend by two batched products with few saved tensors.",
            "pooled_last_block": "With pooling 'cls', the last block computes the class token only.",
        }
    )

    accepts_subset = True
    accepts_padding = True
    base_position: Tensor

    def __init__(self, config: VitConfig, name: str = "vit") -> None:
        super().__init__()
        self._config = config
        self.spec = EncoderSpec(name, config.to_json())
        self.width = self.embed_width = config.width
        self.patch_size = self.stride = config.patch_size
        self.feature_channels = (config.width,)
        self.feature_strides = (config.patch_size,)
        self.num_prefix_tokens = int(config.class_token) + config.num_registers
        self.pooling = config.pooling
        body = _timm_body(config)
        # Adopting the children, not the model, keeps timm's names; timm's own size check knows one size only.
        self.cls_token = body.cls_token
        self.reg_token = body.reg_token
        self.patch_embed = body.patch_embed
        self.patch_embed.strict_img_size = False
        if config.pre_norm and config.patch_bias:
            self.patch_embed.proj.bias = nn.Parameter(torch.zeros(config.width))
        if not config.patch_bias:
            self.patch_embed.proj.bias = None
        self._base_grid = self.grid(*config.image_size)
        self._make_positions()
        self.norm_pre = cast(nn.Module, body.norm_pre)
        self.blocks = cast(nn.Sequential, body.blocks)
        self.norm = cast(nn.LayerNorm, body.norm)
        self._initialise()

    @property
    def config(self) -> VitConfig:
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

    def embed(
        self, images: Float[Tensor, "b c h w"], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Turn images into tokens with their positions added, in raster order or in the order of ``keep``.

        Raises:
            ImageSizeError: A side is not a multiple of the patch size.
            TokenCountError: ``keep`` names more tokens than there are.
        """
        grid = self.grid(images.shape[-2], images.shape[-1])
        self._check_keep(keep, grid)
        position = self._position(grid)
        if keep is not None and "kept_patches" in self._optimisations:
            tokens = embed_patches(self.patch_embed.proj, images, keep)
            return tokens + nn.functional.embedding(keep, position).to(tokens.dtype)
        tokens = self.patch_embed(images)
        tokens = tokens + position.to(tokens.dtype)
        return tokens if keep is None else torch.take_along_dim(tokens, keep[:, :, None], 1)

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "n d"]:
        """Return the position of each patch, fixed or learned, for any grid."""
        return self._position(grid)

    def encode(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b m d"]:
        """Prepend class and register tokens, run the blocks and the final norm; ``m = num_prefix_tokens + n``.

        Args:
            tokens: Any part of what ``embed`` returned, in any order: positions are already in the tokens.
            grid: Rows and columns of the whole image's tokens.
            keep: Not needed; if it is there, it has one entry for each token.

        Raises:
            TokenCountError: There are more tokens than the grid has, or not as many as ``keep`` has entries.
        """
        self._check_tokens(tokens, grid, keep)
        tokens = self._with_prefix(tokens)
        for block in self.blocks:
            tokens = self._run(block, tokens)
        return self.norm(tokens)

    def encode_padded(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int], present: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b m d"]:
        """Return ``encode`` of the tokens that are present, prefix tokens first; no token attends to the others.

        Raises:
            TokenCountError: There are more tokens than the grid has.
        """
        self._check_tokens(tokens, grid, None)
        seen = nn.functional.pad(present, (self.num_prefix_tokens, 0), value=True)[:, None, None]
        tokens = self._with_prefix(tokens)
        for block in self.blocks:
            tokens = self._run(block, tokens, seen)
        return self.norm(tokens)

    def encode_pooled(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b d"]:
        """Return one vector per image; with pooling ``cls`` the last block computes the class token only.

        Raises:
            TokenCountError: As ``encode``.
        """
        if self.pooling != "cls" or "pooled_last_block" not in self._optimisations:
            return self.pool(self.encode(tokens, grid, keep))
        self._check_tokens(tokens, grid, keep)
        tokens = self._with_prefix(tokens)
        for block in list(self.blocks)[:-1]:
            tokens = self._run(block, tokens)
        return self.norm(self._run(partial(self.blocks[-1], rows=slice(0, 1)), tokens)[:, 0])

    def features(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return one map at the stride of the patches: the encoded tokens without class and register tokens."""
        rows, cols = self.grid(images.shape[-2], images.shape[-1])
        tokens = self.encode(self.embed(images), (rows, cols))[:, self.num_prefix_tokens :]
        return [tokens.transpose(1, 2).unflatten(2, (rows, cols)).contiguous()]

    def layer_groups(self) -> list[list[str]]:
        """Return one group for everything before the blocks, one per block, one for the final norm."""
        names = [name for name, _ in self.named_parameters()]
        before = "cls_token reg_token pos_embed patch_embed. norm_pre."
        prefixes = [before, *(f"blocks.{i}." for i in range(len(self.blocks))), "norm."]
        return [[name for name in names if name.startswith(tuple(group.split()))] for group in prefixes]

    def no_weight_decay(self) -> frozenset[str]:
        """Return biases, norms, layer scales, class and register tokens, and learned positions."""
        return undecayed(self, ("cls_token", "reg_token", "pos_embed"))

    def _with_prefix(self, tokens: Tensor) -> Tensor:
        """Class and register tokens before the given ones, and CLIP's norm over all of them."""
        parts = [tokens]
        if self.reg_token is not None:
            parts.insert(0, self.reg_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1))
        if self.cls_token is not None:
            first = self.cls_token
            if self.pos_embed is not None and self.config.class_position:
                first = first + self.pos_embed[:, :1]
            parts.insert(0, first.to(tokens.dtype).expand(tokens.shape[0], -1, -1))
        return self.norm_pre(torch.cat(parts, dim=1) if len(parts) > 1 else tokens)

    def _make_positions(self) -> None:
        """A learned table under timm's name, or a buffer with the fixed positions of the base grid."""
        rows, cols = self._base_grid
        self.pos_embed: nn.Parameter | None = None
        if self.config.position == "learned":
            num = rows * cols + int(self.config.class_position)
            self.pos_embed = nn.Parameter(torch.empty(1, num, self.width))
            return
        position = sin_cos_position(rows, cols, self.width, base_rows=rows, base_cols=cols)
        self.register_buffer("base_position", position, persistent=False)

    def _position(self, grid: tuple[int, int]) -> Float[Tensor, "n d"]:
        if self.pos_embed is not None:
            table = self.pos_embed[0, int(self.config.class_position) :]
            return resampled_position(table, self._base_grid, grid)
        if grid == self._base_grid:
            return self.base_position
        base_rows, base_cols = self._base_grid
        device = self.base_position.device
        return sin_cos_position(*grid, self.width, base_rows=base_rows, base_cols=base_cols, device=device)

    def _initialise(self) -> None:
        """MAE's initialisation: Xavier everywhere, the patch projection seen as a linear layer."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        weight = self.patch_embed.proj.weight
        nn.init.xavier_uniform_(weight.data.view(weight.shape[0], -1))
        for token in (self.cls_token, self.reg_token, self.pos_embed):
            if token is not None:
                nn.init.normal_(token, std=0.02)


def embed_patches(
    projection: nn.Conv2d, images: Float[Tensor, "b c h w"], keep: Int64[Tensor, "b k"]
) -> Float[Tensor, "b k d"]:
    """Apply a patch projection to the named patches only: their pixels are gathered, then multiplied.

    Args:
        projection: The convolution of a patch embedding; its stride is its kernel.
        images: Pixels; both sides are multiples of the kernel.
        keep: Raster indices of patches.
    """
    side = projection.kernel_size[0]
    cols = images.shape[-1] // side
    patches = images.unflatten(3, (cols, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5)
    sample = torch.arange(images.shape[0], device=images.device)[:, None]
    pixels = patches[sample, keep // cols, keep % cols].flatten(2)
    return nn.functional.linear(pixels, projection.weight.flatten(1), projection.bias)


def _timm_body(config: VitConfig) -> VisionTransformer:
    return VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=0,
        global_pool="token" if config.class_token else "avg",
        fc_norm=False,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        qkv_bias=config.qkv_bias,
        init_values=config.layer_scale,
        class_token=config.class_token,
        pos_embed="none",
        reg_tokens=config.num_registers,
        pre_norm=config.pre_norm,
        drop_path_rate=config.drop_path,
        weight_init="skip",
        norm_layer=partial(LayerNorm, eps=config.norm_epsilon),
        act_layer=config.activation,
        attn_layer=VitAttention,
        block_fn=VitBlock,
    )
