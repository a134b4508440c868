"""SimMIM (arXiv:2111.09886) on hierarchical encoders: mask tokens in, pixels out, L1 on the hidden pixels.

The patch embeddings of hidden units are replaced by one learned token, every token goes through the encoder (so masking
saves no compute), and one linear layer per final token predicts its stride × stride × 3 pixels.

Shapes: b samples, n tokens of embed(), d width, c h w pixels.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from unveil_backbones import Encoder
from unveil_masking import Grid, UnitMask, to_pixels

from unveil_pretrain.errors import ConfigError
from unveil_pretrain.losses import masked_l1
from unveil_pretrain.objectives.base import BuildContext, Inputs, LossOutput, Objective, ObjectiveConfig, ValidationCard
from unveil_pretrain.targets import normalise_by_window

__all__ = ["SimMIM", "SimMIMConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SimMIMConfig(ObjectiveConfig):
    """Settings of SimMIM."""

    name: ClassVar[str] = "simmim"

    mask_unit: int = 32
    """Side of a mask unit in pixels; a multiple of the encoder's patch size that divides the image."""
    mask_ratio: float = 0.6
    """Share of units to hide; the count is rounded up (22 of 36 units at 192 pixels)."""
    target_window: int = 47
    """Side in pixels of the window that normalises the target (odd); 0 predicts the pixels as they are."""

    def __post_init__(self) -> None:
        if not 0.0 < self.mask_ratio < 1.0:
            raise ConfigError(f"mask_ratio is {self.mask_ratio}; give a number between 0 and 1, for example 0.6")
        if self.target_window and (self.target_window < 3 or self.target_window % 2 == 0):
            raise ConfigError(f"target_window is {self.target_window}; give an odd number of pixels ≥ 3, or 0 for none")
        if self.mask_unit < 1:
            raise ConfigError(f"mask_unit is {self.mask_unit}; give a positive number of pixels, for example 32")

    def build(self, context: BuildContext) -> "SimMIM":
        """SimMIM around the encoder.

        Raises:
            ConfigError: the encoder adds absolute positions in embed(), or the unit does not fit patches or image.
        """
        encoder = context.encoder
        if encoder.accepts_subset:
            raise ConfigError(
                f"simmim replaces tokens after embed(), where {encoder.spec.name} has already added its positions; "
                "choose a swinv2 encoder, or the mae objective"
            )
        if self.mask_unit % encoder.patch_size:
            raise ConfigError(
                f"mask_unit is {self.mask_unit} pixels, but {encoder.spec.name} has patches of {encoder.patch_size}; "
                f"give a multiple of {encoder.patch_size}"
            )
        if any(side % self.mask_unit for side in context.image_size):
            raise ConfigError(
                f"mask_unit is {self.mask_unit} pixels and does not tile an image of {context.image_size}; "
                "give a unit that divides both sides"
            )
        strategy = UnitMask(self.mask_unit // encoder.patch_size, self.mask_ratio)
        return SimMIM(encoder, strategy, context.image_size, target_window=self.target_window)


class SimMIM(Objective):
    """Predict the pixels of hidden units."""

    def __init__(
        self, encoder: Encoder, strategy: UnitMask, image_size: tuple[int, int], *, target_window: int
    ) -> None:
        """Add the mask token and the linear head; `target_window` = 0 keeps raw pixels as target."""
        super().__init__()
        self.encoder = encoder
        self.strategy = strategy
        self.image_size = image_size
        self.target_window = target_window
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(encoder.embed_width), std=0.02))
        self.head = nn.Conv2d(encoder.width, encoder.stride**2 * 3, kernel_size=1)

    def forward(self, inputs: Inputs, *, seed: int) -> LossOutput:
        """L1 over the hidden pixels of each sample; errors as `encoder.grid` and `UnitMask.sample`."""
        height, width = inputs.images.shape[-2:]
        grid = self.encoder.grid(height, width)
        partition = self.strategy.sample(Grid(*grid), inputs.sample_ids, seed=seed, epoch=inputs.epochs)
        tokens = self.encoder.embed(inputs.images)
        masked = torch.where(partition.mask[:, :, None], self.mask_token.to(tokens.dtype), tokens)
        encoded = self.encoder.encode(masked, grid)[:, self.encoder.num_prefix_tokens :]
        stride = self.encoder.stride
        maps = encoded.transpose(1, 2).unflatten(2, (height // stride, width // stride))
        prediction = F.pixel_shuffle(self.head(maps), stride)
        target = normalise_by_window(inputs.images, self.target_window) if self.target_window else inputs.images
        losses = masked_l1(prediction, target, to_pixels(partition, self.encoder.patch_size))
        return LossOutput(losses, tokens.shape[0] * tokens.shape[1])

    def card(self) -> ValidationCard:
        """Target, reduction and mask of this objective."""
        return ValidationCard(
            target_normalisation=f"window{self.target_window}" if self.target_window else "none",
            reduction="hidden_pixels",
            mask=self.strategy.describe(),
            realised_ratio=self.strategy.realised_ratio(Grid(*self.encoder.grid(*self.image_size))),
        )
