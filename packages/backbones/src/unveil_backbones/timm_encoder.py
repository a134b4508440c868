"""Any of timm's plain Vision Transformers as an encoder, rotary positions and register tokens included.

The modules, their names and their results are timm's: ``encode`` equals ``forward_features``, and ``forward`` equals
``forward_head(..., pre_logits=True)`` where timm pools by class token or mean. Models that timm norms after pooling
(``fc_norm``) have no norm in ``encode``; ``pool`` and ``encode_pooled`` apply it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from unveil_backbones._timm import PatchEmbed
from unveil_backbones.base import Encoder, Pooling, undecayed
from unveil_backbones.errors import ConfigError
from unveil_backbones.position import resampled_position
from unveil_backbones.specs import EncoderSpec
from unveil_backbones.timm_config import TIMM_PREFIX, TimmConfig
from unveil_backbones.timm_models import TimmVit, make_body, timm_preset
from unveil_backbones.vit import embed_patches

__all__ = ["TimmConfig", "TimmEncoder", "timm_preset"]


class TimmEncoder(Encoder):
    """One of timm's Vision Transformers; ``encode`` takes any part of the tokens.

    Args:
        config: Which, and how.

    Raises:
        UnknownModelError: timm has no such model, or it cannot run on a part of its tokens.
        ConfigError: The class token is to be pooled and there is none.
    """

    OPTIMISATIONS: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"kept_patches": "With `keep`, only the pixels of kept patches are gathered and projected."}
    )

    accepts_subset = True

    def __init__(self, config: TimmConfig) -> None:
        super().__init__()
        self._config = config
        self.spec = EncoderSpec(TIMM_PREFIX + config.model, config.to_json())
        body = make_body(config)
        # Adopting the children, not the model, keeps timm's names and leaves the classifier out.
        self.patch_embed = cast(PatchEmbed, body.patch_embed)
        self.width = self.embed_width = body.embed_dim
        self.patch_size = self.stride = config.patch_size
        self.feature_channels, self.feature_strides = (self.width,), (self.patch_size,)
        self._base_grid = self.grid(*config.image_size)
        self._adopt_tokens(body)
        self.rope = cast("nn.Module | None", body._modules.get("rope"))
        self.needs_keep = self.rope is not None
        self._rope_by_block = getattr(body, "rope_mixed", False)
        self.norm_pre = body.norm_pre
        self.blocks = cast("nn.Sequential | nn.ModuleList", body.blocks)
        self.norm = body.norm
        self.fc_norm = body.fc_norm
        self.pooling = config.pooling
        if config.pooling == "cls" and self.cls_token is None:
            raise ConfigError(f"{self.spec.name} has no class token to pool; take pooling 'mean' or 'mean_all'")

    @property
    def config(self) -> TimmConfig:
        """The typed configuration."""
        return self._config

    def embed(
        self, images: Float[Tensor, "b c h w"], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Turn images into tokens, learned positions added, in raster order or in the order of ``keep``.

        Raises:
            ImageSizeError: A side is not a multiple of the patch size.
            TokenCountError: ``keep`` names more tokens than there are.
        """
        grid = self.grid(images.shape[-2], images.shape[-1])
        self._check_keep(keep, grid)
        if keep is not None and "kept_patches" in self._optimisations:
            tokens = self.patch_embed.norm(embed_patches(self.patch_embed.proj, images, keep))
        else:
            tokens = self.patch_embed(images).flatten(1, 2)
            tokens = tokens if keep is None else torch.take_along_dim(tokens, keep[:, :, None], 1)
        table = self.positions(grid)
        if table is None:
            return tokens
        return tokens + (table if keep is None else nn.functional.embedding(keep, table)).to(tokens.dtype)

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "n d"] | None:
        """Return the learned position of each patch; ``None`` where the model only rotates by place."""
        if self.pos_embed is None:
            return None
        return resampled_position(self.pos_embed[0, self._num_positioned :], self._base_grid, grid)

    def encode(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b m d"]:
        """Prepend the prefix tokens, run the blocks and the final norm; ``m = num_prefix_tokens + n``.

        Args:
            tokens: Any part of what ``embed`` returned, in any order.
            grid: Rows and columns of the whole image's tokens.
            keep: Raster index of each token; those of the whole image in order if ``None``.

        Raises:
            TokenCountError: There are more tokens than the grid has, or not as many as ``keep`` has entries.
            KeepError: The model rotates by position, and a part of the tokens came without ``keep``.
        """
        self._check_tokens(tokens, grid, keep)
        rotations = self._rotations(grid, keep)
        tokens = self._with_prefix(tokens)
        for block, rotation in zip(self.blocks, rotations, strict=True):
            tokens = self._run(block, tokens) if rotation is None else self._run(block, tokens, rotation)
        return self.norm(tokens)

    def pool(self, tokens: Float[Tensor, "b m d"], pooling: Pooling | None = None) -> Float[Tensor, "b d"]:
        """Return one vector per image from the tokens of ``encode``, with timm's norm after pooling if it has one."""
        return self.fc_norm(super().pool(tokens, pooling))

    def features(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return one map at the stride of the patches: the encoded tokens without prefix tokens."""
        rows, cols = self.grid(images.shape[-2], images.shape[-1])
        tokens = self.encode(self.embed(images), (rows, cols))[:, self.num_prefix_tokens :]
        return [tokens.transpose(1, 2).unflatten(2, (rows, cols)).contiguous()]

    def layer_groups(self) -> list[list[str]]:
        """Return one group for everything before the blocks, one per block, one for the norms after them."""
        names = [name for name, _ in self.named_parameters()]
        blocks = [(f"blocks.{index}.",) for index in range(len(self.blocks))]
        groups = [[name for name in names if name.startswith(prefix)] for prefix in (*blocks, ("norm.", "fc_norm."))]
        grouped = {name for group in groups for name in group}
        return [[name for name in names if name not in grouped], *groups]

    def no_weight_decay(self) -> frozenset[str]:
        """Return biases, norms, layer scales, prefix tokens, positions and learned rotations."""
        return undecayed(self, ("cls_token", "reg_token", "dist_token", "pos_embed", "rope."))

    def _adopt_tokens(self, body: TimmVit) -> None:
        """Take the prefix tokens and the position table, whose first entries may be those of the prefix tokens."""
        self.cls_token = body.cls_token
        self.dist_token = cast("nn.Parameter | None", body._parameters.get("dist_token"))
        self.reg_token = body.reg_token
        self.pos_embed = body.pos_embed
        self.num_prefix_tokens = body.num_prefix_tokens
        self._num_positioned = 0 if body.no_embed_class or body.pos_embed is None else body.num_prefix_tokens

    def _with_prefix(self, tokens: Tensor) -> Tensor:
        """Class, distillation and register tokens before the given ones, and the norm that CLIP has there."""
        prefix: list[Tensor] = [
            token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None
        ]
        if not prefix:
            return self.norm_pre(tokens)
        first = torch.cat(prefix, dim=1)
        if self._num_positioned and self.pos_embed is not None:
            first = first + self.pos_embed[:, : self._num_positioned]
        first = first.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        return self.norm_pre(torch.cat([first, tokens], dim=1))

    def _rotations(self, grid: tuple[int, int], keep: Tensor | None) -> list[Tensor | None]:
        """What each block rotates queries and keys by: sines and cosines of all tokens, or of those kept."""
        if self.rope is None:
            return [None] * len(self.blocks)
        table: Tensor = self.rope.get_embed(shape=list(grid))  # pyright: ignore[reportCallIssue]  # any of three classes
        if not self._rope_by_block:
            rotation = table if keep is None else nn.functional.embedding(keep, table)[:, None]
            return [rotation] * len(self.blocks)
        if keep is None:
            return list(table)
        # [blocks, heads, n, f] to one [b, heads, k, f] for each block.
        return [of_block[:, keep].transpose(0, 1) for of_block in table]
