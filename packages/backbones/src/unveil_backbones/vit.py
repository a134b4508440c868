"""Vision Transformer on timm's modules, with MAE's fixed positions, class token and initialisation.

MAE: He et al., arXiv 2111.06377. The class token's position is the zero vector there, so nothing is added to it. The
state dict has timm's names and no ``pos_embed``: the positions are computed, for any grid (``position.py``).
"""

from dataclasses import asdict, dataclass
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from unveil_backbones._json import JSON, Fields, read_float, read_int, sequence_of
from unveil_backbones._timm import VisionTransformer
from unveil_backbones.base import Encoder, check_image_size, undecayed
from unveil_backbones.errors import ConfigError
from unveil_backbones.position import sin_cos_position
from unveil_backbones.specs import EncoderSpec

__all__ = ["VitConfig", "VitEncoder"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VitConfig:
    """Shape of a Vision Transformer."""

    image_size: tuple[int, int]
    """Height and width of pre-training, where positions are whole numbers. Other sizes may be given later."""
    patch_size: int
    """Side of a patch in pixels."""
    width: int
    """Width of the tokens."""
    depth: int
    """Number of blocks."""
    num_heads: int
    """Attention heads of each block."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over ``width``."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0."""

    def __post_init__(self) -> None:
        check_image_size(*self.image_size, self.patch_size, "VitConfig")
        if self.width % self.num_heads or self.width % 4:
            raise ConfigError(
                f"width {self.width} with {self.num_heads} heads; width has to be a multiple of 4 and of the heads; "
                "change one of them"
            )
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path {self.drop_path}; it is a probability below 1; give 0 for none")

    def to_json(self) -> dict[str, JSON]:
        """Return plain JSON values."""
        return {**asdict(self), "image_size": list(self.image_size)}

    @classmethod
    def from_json(cls, value: JSON, where: str = "encoder.config") -> "VitConfig":
        """Read what ``to_json`` wrote.

        Raises:
            ManifestError: A field is missing, unknown or of the wrong type.
            ConfigError: The values make no encoder.
        """
        fields = Fields(value, where)
        height, width = fields.take("image_size", sequence_of(read_int, 2))
        config = cls(
            image_size=(height, width),
            patch_size=fields.take("patch_size", read_int),
            width=fields.take("width", read_int),
            depth=fields.take("depth", read_int),
            num_heads=fields.take("num_heads", read_int),
            mlp_ratio=fields.take("mlp_ratio", read_float),
            drop_path=fields.take("drop_path", read_float),
        )
        fields.done()
        return config


class VitEncoder(Encoder):
    """A Vision Transformer whose ``encode`` takes any part of the tokens.

    Args:
        config: Its shape.
        name: Name of the architecture in the spec.
    """

    accepts_subset = True
    num_prefix_tokens = 1
    base_position: Tensor

    def __init__(self, config: VitConfig, name: str = "vit") -> None:
        super().__init__()
        self._config = config
        self.spec = EncoderSpec(name, config.to_json())
        self.width = self.embed_width = config.width
        self.patch_size = self.stride = config.patch_size
        self.feature_channels = (config.width,)
        self.feature_strides = (config.patch_size,)
        body = VisionTransformer(
            img_size=config.image_size,
            patch_size=config.patch_size,
            num_classes=0,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            pos_embed="none",
            drop_path_rate=config.drop_path,
            weight_init="skip",
        )
        # Adopting the children, not the model, keeps timm's names; timm's own size check knows one size only.
        self.patch_embed = body.patch_embed
        self.patch_embed.strict_img_size = False
        assert body.cls_token is not None
        self.cls_token = body.cls_token
        self.blocks = cast(nn.Sequential, body.blocks)
        self.norm = cast(nn.LayerNorm, body.norm)
        self._initialise()
        rows, cols = self.grid(*config.image_size)
        position = sin_cos_position(rows, cols, config.width, base_rows=rows, base_cols=cols)
        self.register_buffer("base_position", position, persistent=False)

    @property
    def config(self) -> VitConfig:
        """The typed configuration."""
        return self._config

    def _initialise(self) -> None:
        """MAE's initialisation: Xavier everywhere, the patch projection seen as a linear layer."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        weight = self.patch_embed.proj.weight
        nn.init.xavier_uniform_(weight.data.view(weight.shape[0], -1))
        nn.init.normal_(self.cls_token, std=0.02)

    def embed(
        self, images: Float[Tensor, "b c h w"], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Turn images into tokens in raster order with their positions added.

        Raises:
            ImageSizeError: A side is not a multiple of the patch size.
        """
        rows, cols = self.grid(images.shape[-2], images.shape[-1])
        self._check_keep(keep, (rows, cols))
        tokens = self.patch_embed(images)
        tokens = tokens + self._position(rows, cols).to(tokens.dtype)
        return tokens if keep is None else torch.take_along_dim(tokens, keep[:, :, None], 1)

    def encode(self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b m d"]:
        """Prepend the class token, run the blocks and the final norm; ``m = 1 + n``.

        Args:
            tokens: Any part of what ``embed`` returned, in any order: positions are already in the tokens.
            grid: Rows and columns of the whole image's tokens.

        Raises:
            TokenCountError: There are more tokens than the grid has.
        """
        self._check_count(tokens.shape[1], grid)
        prefix = self.cls_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        return self.norm(self.blocks(torch.cat([prefix, tokens], dim=1)))

    def features(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return one map at the stride of the patches: the encoded tokens without the class token."""
        rows, cols = self.grid(images.shape[-2], images.shape[-1])
        tokens = self.encode(self.embed(images), (rows, cols))[:, self.num_prefix_tokens :]
        return [tokens.transpose(1, 2).unflatten(2, (rows, cols)).contiguous()]

    def layer_groups(self) -> list[list[str]]:
        """Return one group for class token and patch embedding, one per block, one for the final norm."""
        names = [name for name, _ in self.named_parameters()]
        prefixes = ["cls_token patch_embed.", *(f"blocks.{i}." for i in range(len(self.blocks))), "norm."]
        return [[name for name in names if name.startswith(tuple(group.split()))] for group in prefixes]

    def no_weight_decay(self) -> frozenset[str]:
        """Return biases, norms and the class token."""
        return undecayed(self, ("cls_token",))

    def _position(self, rows: int, cols: int) -> Float[Tensor, "n d"]:
        base_rows, base_cols = self.grid(*self.config.image_size)
        if (rows, cols) == (base_rows, base_cols):
            return self.base_position
        device = self.base_position.device
        return sin_cos_position(rows, cols, self.width, base_rows=base_rows, base_cols=base_cols, device=device)
