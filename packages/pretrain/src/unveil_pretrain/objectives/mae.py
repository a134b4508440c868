"""MAE (arXiv:2111.06377): the encoder sees kept patches only, a small decoder predicts the hidden ones.

The decoder's attention does not care about the order of its tokens, which carry their positions. It therefore gets them
as prefix, kept, hidden, without putting them back in order, and its last block computes the hidden ones only.

Shapes: b samples, n patches, k kept, m hidden, d width of the decoder, p values of a patch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import embedding
from unveil_backbones import Encoder
from unveil_backbones.position import sin_cos_position
from unveil_backbones.vit_attention import VitAttention, VitBlock
from unveil_masking import Grid, Partition, RandomMask, restore

from unveil_pretrain.errors import ConfigError
from unveil_pretrain.losses import patch_mse
from unveil_pretrain.objectives.base import BuildContext, Inputs, LossOutput, Objective, ObjectiveConfig, ValidationCard
from unveil_pretrain.targets import normalise_patches, patchify

__all__ = ["MAE", "MAEConfig", "MAEDecoder", "check_decoder"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MAEConfig(ObjectiveConfig):
    """Settings of MAE."""

    name: ClassVar[str] = "mae"

    mask_ratio: float = 0.75
    """Share of patches to hide; the kept count is rounded down."""
    normalise_target: bool = True
    """Whether each patch is normalised by its own mean and variance before it is predicted."""
    decoder_width: int = 512
    """Width of the decoder; a multiple of 4 and of decoder_heads."""
    decoder_depth: int = 8
    """Number of transformer blocks of the decoder."""
    decoder_heads: int = 16
    """Attention heads of the decoder."""

    def __post_init__(self) -> None:
        if not 0.0 < self.mask_ratio < 1.0:
            raise ConfigError(f"mask_ratio is {self.mask_ratio}; give a number between 0 and 1, for example 0.75")
        check_decoder(width=self.decoder_width, depth=self.decoder_depth, heads=self.decoder_heads)

    def build(self, context: BuildContext) -> "MAE":
        """MAE around the encoder.

        Raises:
            ConfigError: the encoder cannot work on any subset of its tokens.
        """
        encoder = context.encoder
        if not encoder.accepts_subset:
            raise ConfigError(
                f"mae encodes kept tokens only, which {encoder.spec.name} cannot; choose a vit encoder, or simmim"
            )
        if encoder.mask_unit != 1:
            raise ConfigError(
                f"mae hides single patches, and {encoder.spec.name} hides units of {encoder.mask_unit} x "
                f"{encoder.mask_unit}; choose a vit encoder, or flip"
            )
        decoder = MAEDecoder(
            encoder.width,
            width=self.decoder_width,
            depth=self.decoder_depth,
            heads=self.decoder_heads,
            num_outputs=encoder.patch_size**2 * 3,
        )
        return MAE(
            encoder,
            decoder,
            RandomMask(self.mask_ratio),
            context.image_size,
            normalise_target=self.normalise_target,
        )


def check_decoder(*, width: int, depth: int, heads: int) -> None:
    """Refuse settings that make no `MAEDecoder`.

    Raises:
        ConfigError: a number is below 1, or the width is no multiple of 4 and of the heads.
    """
    if depth < 1 or heads < 1:
        raise ConfigError(f"decoder_depth is {depth} and decoder_heads {heads}; give at least 1 of each")
    if width < 4 or width % 4 or width % heads:
        raise ConfigError(f"decoder_width is {width}; give a multiple of 4 and of the {heads} heads")


class MAEDecoder(nn.Module):
    """Kept tokens and mask tokens through a few blocks; one linear layer to the pixels of a patch."""

    def __init__(self, encoder_width: int, *, width: int, depth: int, heads: int, num_outputs: int) -> None:
        """Build `depth` timm blocks of `width`; the output has `num_outputs` values per token."""
        super().__init__()
        self.width = width
        self.project = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        self.blocks = nn.ModuleList(
            VitBlock(width, heads, mlp_ratio=4.0, qkv_bias=True, attn_layer=VitAttention) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.predict = nn.Linear(width, num_outputs)
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        latent: Float[Tensor, "b _ e"],
        partition: Partition[Tensor],
        positions: Float[Tensor, "n d"],
        *,
        num_prefix: int,
        permuted: bool,
    ) -> Float[Tensor, "b m p"]:
        """Predict the hidden patches; arguments as `hidden_features`."""
        return self.predict(
            self.hidden_features(latent, partition, positions, num_prefix=num_prefix, permuted=permuted)
        )

    def hidden_features(
        self,
        latent: Float[Tensor, "b _ e"],
        partition: Partition[Tensor],
        positions: Float[Tensor, "n d"],
        *,
        num_prefix: int,
        permuted: bool,
    ) -> Float[Tensor, "b m d"]:
        """What stands in the places of hidden patches after the last block and its norm.

        Args:
            latent: What the encoder returned for the kept patches.
            partition: Which ones these are.
            positions: Of all patches in raster order.
            num_prefix: Tokens of `latent` before those of the patches.
            permuted: Whether to leave the tokens in the order kept, hidden and to skip the last block's unread rows;
                the result is the same either way.
        """
        latent = self.project(latent)
        prefix, kept = latent[:, :num_prefix], latent[:, num_prefix:]
        positions = positions.to(latent.dtype)
        if not permuted:
            tokens = torch.cat([prefix, restore(kept, partition, self.mask_token) + positions], dim=1)
            for block in self.blocks:
                tokens = block(tokens)
            wanted = torch.take_along_dim(tokens[:, num_prefix:], partition.hidden[:, :, None], 1)
            return self.norm(wanted)
        masked = self.mask_token.to(latent.dtype) + embedding(partition.hidden, positions)
        tokens = torch.cat([prefix, kept + embedding(partition.keep, positions), masked], dim=1)
        for block in list(self.blocks)[:-1]:
            tokens = block(tokens)
        hidden = slice(tokens.shape[1] - masked.shape[1], None)
        return self.norm(self.blocks[-1](tokens, rows=hidden))


class MAE(Objective):
    """Predict hidden patches from kept ones."""

    OPTIMISATIONS: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "hidden_last": "Decoder tokens stay in the order kept, hidden; its last block computes hidden ones only.",
            "hidden_targets": "Only hidden patches are normalised.",
        }
    )

    def __init__(
        self,
        encoder: Encoder,
        decoder: MAEDecoder,
        strategy: RandomMask,
        image_size: tuple[int, int],
        *,
        normalise_target: bool,
    ) -> None:
        """Join encoder and decoder."""
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.strategy = strategy
        self.image_size = image_size
        self.normalise_target = normalise_target

    def forward(self, inputs: Inputs, *, seed: int) -> LossOutput:
        """Mean squared error over the hidden patches of each sample."""
        sides = self.encoder.grid(*inputs.images.shape[-2:])
        partition = self.strategy.sample(Grid(*sides), inputs.sample_ids, seed=seed, epoch=inputs.epochs)
        keep = partition.keep
        latent = self.encoder.encode(self.encoder.embed(inputs.images, keep), sides, keep)
        positions = sin_cos_position(
            *sides, self.decoder.width, base_rows=sides[0], base_cols=sides[1], device=latent.device
        )
        prediction = self.decoder(
            latent,
            partition,
            positions,
            num_prefix=self.encoder.num_prefix_tokens,
            permuted="hidden_last" in self.optimisations,
        )
        losses = patch_mse(prediction, self._target(inputs.images, partition.hidden))
        return LossOutput(losses, keep.shape[0] * keep.shape[1])

    def _target(self, images: Float[Tensor, "b c h w"], hidden: Int64[Tensor, "b m"]) -> Float[Tensor, "b m p"]:
        """Values of the hidden patches, normalised if the settings say so."""
        patches = patchify(images, self.encoder.patch_size)
        if not self.normalise_target:
            return torch.take_along_dim(patches, hidden[:, :, None], 1)
        if "hidden_targets" in self.optimisations:
            return normalise_patches(torch.take_along_dim(patches, hidden[:, :, None], 1))
        return torch.take_along_dim(normalise_patches(patches), hidden[:, :, None], 1)

    def card(self) -> ValidationCard:
        """Target, reduction and mask of this objective."""
        return ValidationCard(
            target_normalisation="patch" if self.normalise_target else "none",
            reduction="hidden_patches",
            mask=self.strategy.describe(),
            realised_ratio=self.strategy.realised_ratio(Grid(*self.encoder.grid(*self.image_size))),
        )
