"""I-JEPA-style latent targets (arXiv:2301.08243): predict what a teacher makes of the target blocks, not their pixels.

The encoder sees a context block less the targets; a narrow predictor asks, for each target block by itself, what the
teacher's tokens are there. The teacher is an exponential moving average of the encoder, sees the whole image, has no
gradients, and its tokens are layer-normed without gain.

Where the authors' code cuts every context and target of a batch to the batch's shortest, here nothing is cut: a mask is
a function of (seed, epoch, sample id), and shorter samples are padded by tokens that nobody attends to. So the loss of
a sample does not depend on its batch.

What the validation loss means: the targets move with the teacher. Losses of two steps of a run, or of two runs, measure
the distance to two different teachers; a falling curve is not by itself progress, and a collapsed teacher has a loss of
nearly zero. It cannot be read as pixel losses are.

Shapes: b samples, n patches, k context patches, t target blocks, m patches of a block, d width of the predictor, e of
the encoder.
"""

import copy
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from unveil_backbones import Encoder
from unveil_backbones.position import sin_cos_position
from unveil_backbones.vit_attention import VitAttention, VitBlock
from unveil_masking import Grid, MultiBlockMask

from unveil_pretrain.errors import ConfigError
from unveil_pretrain.losses import present_mse, smooth_l1
from unveil_pretrain.objectives.base import BuildContext, Inputs, LossOutput, Objective, ObjectiveConfig, ValidationCard

__all__ = ["IJEPA", "Distance", "IJEPAConfig", "Predictor"]

Distance = Literal["smooth_l1", "l2"]
_DISTANCES = {"smooth_l1": smooth_l1, "l2": present_mse}
_RATIO_MASKS = 1024
"""Masks whose mean gives the realised ratio, as samples hide unequal numbers of patches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IJEPAConfig(ObjectiveConfig):
    """Settings of I-JEPA-style latent targets."""

    name: ClassVar[str] = "ijepa"

    num_targets: int = 4
    """Target blocks of each image."""
    target_area: tuple[float, float] = (0.15, 0.2)
    """Smallest and largest share of the image that a target block covers."""
    target_aspect: tuple[float, float] = (0.75, 1.5)
    """Smallest and largest height / width of a target block."""
    context_area: tuple[float, float] = (0.85, 1.0)
    """Smallest and largest share of the image that the context covers before the targets are taken out of it."""
    distance: Distance = "smooth_l1"
    """Distance of prediction and target: smooth_l1 as in the authors' code, or l2 as in the paper."""
    momentum: float = 0.996
    """The teacher's momentum at the start; it rises linearly to 1 at the end."""
    predictor_width: int = 384
    """Width of the predictor; a multiple of 4 and of predictor_heads."""
    predictor_depth: int = 12
    """Number of transformer blocks of the predictor."""
    predictor_heads: int = 12
    """Attention heads of the predictor."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.momentum <= 1.0:
            raise ConfigError(f"momentum is {self.momentum}; give a number between 0 and 1, for example 0.996")
        if self.predictor_depth < 1 or self.predictor_heads < 1:
            raise ConfigError(
                f"predictor_depth is {self.predictor_depth} and predictor_heads {self.predictor_heads}; "
                "give at least 1 of each"
            )
        if self.predictor_width < 4 or self.predictor_width % 4 or self.predictor_width % self.predictor_heads:
            raise ConfigError(
                f"predictor_width is {self.predictor_width}; "
                f"give a multiple of 4 and of the {self.predictor_heads} heads"
            )
        self._strategy()  # which checks blocks

    def build(self, context: BuildContext) -> "IJEPA":
        """I-JEPA around the encoder; the teacher starts as its copy.

        Raises:
            ConfigError: the encoder cannot work on unequal numbers of tokens.
        """
        encoder = context.encoder
        if not encoder.accepts_padding:
            raise ConfigError(
                f"ijepa encodes contexts of unequal size, which {encoder.spec.name} cannot; choose a vit encoder"
            )
        predictor = Predictor(
            encoder.width, width=self.predictor_width, depth=self.predictor_depth, heads=self.predictor_heads
        )
        return IJEPA(
            encoder,
            predictor,
            self._strategy(),
            context.image_size,
            distance=self.distance,
            momentum=self.momentum,
        )

    def _strategy(self) -> MultiBlockMask:
        return MultiBlockMask(
            num_targets=self.num_targets,
            target_area=self.target_area,
            target_aspect=self.target_aspect,
            context_area=self.context_area,
        )


class Predictor(nn.Module):
    """A narrow transformer from context tokens and the places of a target block to the teacher's tokens there."""

    def __init__(self, encoder_width: int, *, width: int, depth: int, heads: int) -> None:
        """Build `depth` timm blocks of `width`; the output has `encoder_width` values per token."""
        super().__init__()
        self.width = width
        self.project = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02))
        self.blocks = nn.ModuleList(
            VitBlock(width, heads, mlp_ratio=4.0, qkv_bias=True, attn_layer=VitAttention) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.predict = nn.Linear(width, encoder_width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        context: Float[Tensor, "b k e"],
        places: Int64[Tensor, "b k"],
        seen: Bool[Tensor, "b k"],
        targets: Int64[Tensor, "b t m"],
        asked: Bool[Tensor, "b t m"],
        positions: Float[Tensor, "n d"],
    ) -> Float[Tensor, "b t m e"]:
        """Predict every target block from the context, without the other blocks.

        Args:
            context: The encoder's tokens of the context's patches.
            places: Raster indices of these patches.
            seen: False for tokens that only fill up.
            targets: Raster indices of the patches of each block.
            asked: False for patches that only fill up.
            positions: Of all patches in raster order.
        """
        num_blocks, num_seen = targets.shape[1], context.shape[1]
        known = self.project(context)
        positions = positions.to(known.dtype)
        known = (known + F.embedding(places, positions))[:, None].expand(-1, num_blocks, -1, -1)
        unknown = self.mask_token.to(known.dtype) + F.embedding(targets, positions)
        tokens = torch.cat([known, unknown], dim=2).flatten(0, 1)
        present = torch.cat([seen[:, None].expand(-1, num_blocks, -1), asked], dim=2).flatten(0, 1)[:, None, None]
        for block in self.blocks:
            tokens = block(tokens, present)
        return self.predict(self.norm(tokens[:, num_seen:])).unflatten(0, (-1, num_blocks))


class IJEPA(Objective):
    """Predict the teacher's tokens of target blocks from a context."""

    def __init__(
        self,
        encoder: Encoder,
        predictor: Predictor,
        strategy: MultiBlockMask,
        image_size: tuple[int, int],
        *,
        distance: Distance,
        momentum: float,
    ) -> None:
        """Join encoder and predictor, and copy the encoder as teacher."""
        super().__init__()
        self.encoder = encoder
        self.teacher = copy.deepcopy(encoder).requires_grad_(False).eval()
        self.predictor = predictor
        self.strategy = strategy
        self.image_size = image_size
        self.distance: Distance = distance
        self.momentum = momentum

    def train(self, mode: bool = True) -> "IJEPA":
        """Set the mode of everything but the teacher, which never drops anything."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, inputs: Inputs, *, seed: int) -> LossOutput:
        """Mean distance over the patches of a block, then over the blocks of a sample."""
        sides = self.encoder.grid(*inputs.images.shape[-2:])
        grid = Grid(*sides)
        partition = self.strategy.sample(grid, inputs.sample_ids, seed=seed, epoch=inputs.epochs)
        blocks = self.strategy.targets(grid, inputs.sample_ids, seed=seed, epoch=inputs.epochs)
        places, seen = _listed(~partition.mask)
        targets, asked = _listed(blocks)
        tokens = self.encoder.embed(inputs.images, places)
        context = self.encoder.encode_padded(tokens, sides, seen)[:, self.encoder.num_prefix_tokens :]
        predictor = self.predictor
        positions = sin_cos_position(
            *sides, predictor.width, base_rows=sides[0], base_cols=sides[1], device=context.device
        )
        predicted = predictor(context, places, seen, targets, asked, positions)
        wanted = self._targets(inputs.images, sides, targets)
        per_block = _DISTANCES[self.distance](predicted.flatten(0, 1), wanted.flatten(0, 1), asked.flatten(0, 1))
        return LossOutput(per_block.unflatten(0, targets.shape[:2]).mean(dim=1), int(seen.sum()))

    @torch.no_grad()
    def _targets(
        self, images: Float[Tensor, "b c h w"], sides: tuple[int, int], targets: Int64[Tensor, "b t m"]
    ) -> Float[Tensor, "b t m e"]:
        """The teacher's tokens of the whole image, each normalised, in the places of the targets."""
        tokens = self.teacher.encode(self.teacher.embed(images), sides)[:, self.teacher.num_prefix_tokens :].float()
        normed = F.layer_norm(tokens, tokens.shape[-1:])
        index = targets.flatten(1)[:, :, None]
        return torch.take_along_dim(normed, index, 1).unflatten(1, targets.shape[1:])

    @torch.no_grad()
    def after_update(self, progress: float) -> None:
        """Move the teacher: momentum · teacher + (1 − momentum) · encoder, the momentum linear in `progress`."""
        momentum = self.momentum + (1.0 - self.momentum) * progress
        for teacher, student in zip(self.teacher.parameters(), self.encoder.parameters(), strict=True):
            teacher.lerp_(student, 1.0 - momentum)

    @cached_property
    def _mean_ratio(self) -> float:
        """Mean share of hidden patches over fixed masks."""
        grid = Grid(*self.encoder.grid(*self.image_size))
        masks = self.strategy.sample(grid, np.arange(_RATIO_MASKS, dtype=np.int64), seed=0)
        return round(float(masks.mask.mean()), 4)

    def card(self) -> ValidationCard:
        """Target, reduction and mask of this objective; the ratio is the mean over 1024 fixed masks."""
        return ValidationCard(
            target_normalisation="ema_teacher layer_norm",
            reduction=f"target_patches {self.distance}",
            mask=self.strategy.describe(),
            realised_ratio=self._mean_ratio,
        )


def _listed(chosen: Bool[Tensor, "*b n"]) -> tuple[Int64[Tensor, "*b m"], Bool[Tensor, "*b m"]]:
    """Indices of the True places, filled up to the longest list by False ones; and which entries are no filling."""
    longest = int(chosen.sum(dim=-1).max())  # on a GPU the host waits here: shorter lists are worth more
    index = chosen.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[..., :longest]
    return index, torch.take_along_dim(chosen, index, -1)
