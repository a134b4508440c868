"""SimMIM (arXiv:2111.09886) on SwinV2 and ViT: mask tokens in, pixels out, L1 on the hidden pixels.

The patch embeddings of hidden units are replaced by one learned token, before positions are added where an encoder has
them. Every token goes through the encoder (so masking saves no compute), and one linear layer per final token predicts
its stride × stride × 3 pixels.

A final token stands for a cell of stride × stride pixels. Shapes: b samples, n tokens of embed(), d width, c h w
pixels, m hidden cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from unveil_backbones import Encoder
from unveil_masking import Grid, Partition, UnitMask, to_pixels

from unveil_pretrain.errors import ConfigError
from unveil_pretrain.losses import cell_l1, masked_l1
from unveil_pretrain.mask_tokens import check_replaceable, hide_tokens
from unveil_pretrain.objectives.base import BuildContext, Inputs, LossOutput, Objective, ObjectiveConfig, ValidationCard
from unveil_pretrain.targets import cut_cells, normalise_by_window

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
            ConfigError: the encoder's patches overlap, or the unit does not fit patches or image.
        """
        encoder = context.encoder
        check_replaceable(encoder, self.name)
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

    OPTIMISATIONS: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "running_sums": "Windows of the target are summed by running sums, at a cost that does not grow with them.",
            "hidden_cells": "Decoder and loss see hidden cells only, where a mask unit is made of whole cells.",
        }
    )

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
        grid = self.encoder.grid(*inputs.images.shape[-2:])
        partition = self.strategy.sample(Grid(*grid), inputs.sample_ids, seed=seed, epoch=inputs.epochs)
        tokens = self.encoder.embed(inputs.images)
        masked = hide_tokens(self.encoder, tokens, partition.mask, self.mask_token, grid)
        target = self._target(inputs.images)
        if "hidden_cells" in self.optimisations and self._hides_cells():
            losses = self._losses_of_cells(masked, target, partition)
        else:
            losses = self._losses_of_pixels(masked, target, partition)
        return LossOutput(losses, tokens.shape[0] * tokens.shape[1])

    def _target(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if not self.target_window:
            return images
        return normalise_by_window(images, self.target_window, running_sums="running_sums" in self.optimisations)

    def _hides_cells(self) -> bool:
        """Whether a final token is hidden either as a whole or not at all."""
        return self.strategy.unit * self.encoder.patch_size % self.encoder.stride == 0

    def _losses_of_pixels(
        self, masked: Float[Tensor, "b n d"], target: Float[Tensor, "b c h w"], partition: Partition[Tensor]
    ) -> Float[Tensor, " b"]:
        """Decode every cell, and weigh pixels by the mask."""
        stride, (height, width) = self.encoder.stride, target.shape[-2:]
        encoded = self.encoder.encode(masked, (partition.grid.rows, partition.grid.cols))
        maps = encoded[:, self.encoder.num_prefix_tokens :].transpose(1, 2)
        maps = maps.unflatten(2, (height // stride, width // stride))
        prediction = F.pixel_shuffle(self.head(maps), stride)
        return masked_l1(prediction, target, to_pixels(partition, self.encoder.patch_size))

    def _losses_of_cells(
        self, masked: Float[Tensor, "b n d"], target: Float[Tensor, "b c h w"], partition: Partition[Tensor]
    ) -> Float[Tensor, " b"]:
        """Encode, decode and compare the hidden cells alone."""
        side = self.encoder.stride // self.encoder.patch_size
        grid = (partition.grid.rows, partition.grid.cols)
        corners = partition.mask.unflatten(1, grid)[:, ::side, ::side].flatten(1)
        # Every sample hides equally many: sorting brings them to the front and keeps shapes fixed.
        hidden = corners.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        hidden = hidden[:, : partition.num_hidden // side**2]
        encoded = self.encoder.encode_at(masked, grid, hidden + self.encoder.num_prefix_tokens)
        prediction = F.linear(encoded, self.head.weight.flatten(1), self.head.bias)
        return cell_l1(prediction, cut_cells(target, self.encoder.stride, hidden), target.shape[1])

    def card(self) -> ValidationCard:
        """Target, reduction and mask of this objective."""
        return ValidationCard(
            target_normalisation=f"window{self.target_window}" if self.target_window else "none",
            reduction="hidden_pixels",
            mask=self.strategy.describe(),
            realised_ratio=self.strategy.realised_ratio(Grid(*self.encoder.grid(*self.image_size))),
        )
