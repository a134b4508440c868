"""BEiT-style token prediction (arXiv:2106.08254): which visual token stands in each hidden patch?

Blocks of patches are replaced by a mask token before positions are added, all tokens go through the encoder, and a
linear layer chooses among the visual tokens of the whole image. Where BEiT asks a discrete VAE, trained on other data,
the tokenizer here is a vocabulary of training patches (`patch_vocabulary.py`).

Samples do not meet. Shapes: b samples, n patches, m hidden, v visual tokens, d width.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from unveil_backbones import Encoder
from unveil_masking import BlockMask, Grid

from unveil_pretrain.errors import ConfigError
from unveil_pretrain.losses import token_cross_entropy
from unveil_pretrain.mask_tokens import check_replaceable, hide_tokens
from unveil_pretrain.objectives.base import BuildContext, Inputs, LossOutput, Objective, ObjectiveConfig, ValidationCard
from unveil_pretrain.patch_vocabulary import PatchVocabulary, vocabulary_for
from unveil_pretrain.targets import patchify

__all__ = ["BEiT", "BEiTConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BEiTConfig(ObjectiveConfig):
    """Settings of BEiT-style token prediction."""

    name: ClassVar[str] = "beit"

    mask_ratio: float = 0.383
    """Share of patches to hide, rounded down (75 of 196); blocks first, single patches for what is then missing."""
    min_block: int = 16
    """Smallest block, in patches; smaller ones come up when fewer are wanted."""
    vocab_size: int = 8192
    """Visual tokens: patches drawn from the training images, which need that many different ones."""

    def __post_init__(self) -> None:
        if not 0.0 < self.mask_ratio < 1.0:
            raise ConfigError(f"mask_ratio is {self.mask_ratio}; give a number between 0 and 1, for example 0.383")
        if self.min_block < 1:
            raise ConfigError(f"min_block is {self.min_block}; give a positive number of patches, for example 16")
        if self.vocab_size < 2:
            raise ConfigError(f"vocab_size is {self.vocab_size}; give at least 2 visual tokens, for example 8192")

    def build(self, context: BuildContext) -> "BEiT":
        """BEiT around the encoder, with the checkpoint's vocabulary or one drawn from the training images.

        Raises:
            ConfigError: the encoder does not give one token per patch, or the images have too few different patches.
        """
        encoder = context.encoder
        check_replaceable(encoder, self.name)
        if encoder.stride != encoder.patch_size:
            raise ConfigError(
                f"beit predicts a visual token for each patch, and {encoder.spec.name} merges patches of "
                f"{encoder.patch_size} pixels into tokens of {encoder.stride}; choose a vit encoder"
            )
        # Exact, so that every sample weighs the same and shapes are fixed.
        strategy = BlockMask(self.mask_ratio, min_block=self.min_block, exact=True)
        vocabulary = vocabulary_for(context, self.vocab_size)
        return BEiT(encoder, vocabulary, strategy, context.image_size)


class BEiT(Objective):
    """Predict the visual tokens of hidden patches."""

    def __init__(
        self, encoder: Encoder, vocabulary: PatchVocabulary, strategy: BlockMask, image_size: tuple[int, int]
    ) -> None:
        """Add the mask token and the linear head."""
        super().__init__()
        self.encoder = encoder
        self.vocabulary = vocabulary
        self.strategy = strategy
        self.image_size = image_size
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(encoder.embed_width), std=0.02))
        self.head = nn.Linear(encoder.width, len(vocabulary))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Inputs, *, seed: int) -> LossOutput:
        """Mean cross-entropy over the hidden patches of each sample; errors as `encoder.grid`, `BlockMask.sample`."""
        grid = self.encoder.grid(*inputs.images.shape[-2:])
        partition = self.strategy.sample(Grid(*grid), inputs.sample_ids, seed=seed, epoch=inputs.epochs)
        hidden = partition.hidden
        tokens = self.encoder.embed(inputs.images)
        masked = hide_tokens(self.encoder, tokens, partition.mask, self.mask_token, grid)
        logits = self.head(self.encoder.encode_at(masked, grid, hidden + self.encoder.num_prefix_tokens))
        patches = torch.take_along_dim(patchify(inputs.images, self.encoder.patch_size), hidden[:, :, None], 1)
        return LossOutput(token_cross_entropy(logits, self.vocabulary(patches)), tokens.shape[0] * tokens.shape[1])

    def card(self) -> ValidationCard:
        """Target (with the hash of its vocabulary), reduction and mask of this objective."""
        return ValidationCard(
            target_normalisation=f"patch_vocabulary {len(self.vocabulary)} {self.vocabulary.content_hash}",
            reduction="hidden_patches",
            mask=self.strategy.describe(),
            realised_ratio=self.strategy.realised_ratio(Grid(*self.encoder.grid(*self.image_size))),
        )
