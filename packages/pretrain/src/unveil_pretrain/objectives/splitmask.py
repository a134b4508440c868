"""SplitMask (El-Nouby et al., arXiv:2112.10740): two halves of an image inpaint each other, and find each other again.

The patches are split at random into two halves. A shared encoder sees each half alone; a shallow decoder fills in the
other half, whose visual tokens it is to name (`patch_vocabulary.py`). The means of what it filled in are two views of
one image: InfoNCE asks to find the partner among the other images of the batch.

Loss: mean cross-entropy over both inpainted halves + contrast_weight · InfoNCE. Samples meet in the second term.
Shapes: b samples, n patches, m of one half, d width of the decoder, v visual tokens, e embedding width.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor
from unveil_backbones import Encoder
from unveil_backbones.position import sin_cos_position
from unveil_masking import Grid, Partition, SplitMask

from unveil_pretrain.contrastive import alone, info_nce
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.losses import token_cross_entropy
from unveil_pretrain.objectives.base import (
    BuildContext,
    Encoded,
    Gather,
    Inputs,
    LossOutput,
    Objective,
    ObjectiveConfig,
    ValidationCard,
)
from unveil_pretrain.objectives.mae import MAEDecoder, check_decoder
from unveil_pretrain.patch_vocabulary import PatchVocabulary, vocabulary_for
from unveil_pretrain.targets import patchify

__all__ = ["SplitMaskConfig", "SplitMaskObjective"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitMaskConfig(ObjectiveConfig):
    """Settings of SplitMask."""

    name: ClassVar[str] = "splitmask"

    vocab_size: int = 8192
    """Visual tokens: patches drawn from the training images, which need that many different ones."""
    decoder_width: int = 512
    """Width of the decoder; a multiple of 4 and of decoder_heads."""
    decoder_depth: int = 2
    """Number of transformer blocks of the decoder."""
    decoder_heads: int = 8
    """Attention heads of the decoder."""
    contrast_weight: float = 1.0
    """Factor of InfoNCE beside the cross-entropy; 0 leaves it out. The paper's value is not known to us."""
    temperature: float = 0.1
    """Similarities are divided by it in InfoNCE. The paper's value is not known to us."""
    negative_pool: int = 100
    """Validation images that are compared with each other; the validation set is cut into pools in key order."""

    def __post_init__(self) -> None:
        check_decoder(width=self.decoder_width, depth=self.decoder_depth, heads=self.decoder_heads)
        if self.vocab_size < 2 or self.negative_pool < 2:
            raise ConfigError(
                f"vocab_size is {self.vocab_size} and negative_pool {self.negative_pool}; give at least 2 of each"
            )
        if self.contrast_weight < 0.0 or self.temperature <= 0.0:
            raise ConfigError(
                f"contrast_weight is {self.contrast_weight} and temperature {self.temperature}; give a weight of at "
                "least 0 and a positive temperature, for example 1 and 0.1"
            )

    def build(self, context: BuildContext) -> "SplitMaskObjective":
        """SplitMask around the encoder, with the checkpoint's vocabulary or one drawn from the training images.

        Raises:
            ConfigError: the encoder cannot work on half of its tokens, or the images have too few different patches.
        """
        encoder = context.encoder
        if not encoder.accepts_subset or encoder.mask_unit != 1:
            raise ConfigError(
                f"splitmask encodes halves of the patches, which {encoder.spec.name} cannot; choose a vit encoder"
            )
        vocabulary = vocabulary_for(context, self.vocab_size)
        decoder = MAEDecoder(
            encoder.width,
            width=self.decoder_width,
            depth=self.decoder_depth,
            heads=self.decoder_heads,
            num_outputs=len(vocabulary),
        )
        return SplitMaskObjective(encoder, decoder, vocabulary, context.image_size, settings=self)


class SplitMaskObjective(Objective):
    """Name the visual tokens of one half from the other, both ways, and match the two halves of an image."""

    def __init__(
        self,
        encoder: Encoder,
        decoder: MAEDecoder,
        vocabulary: PatchVocabulary,
        image_size: tuple[int, int],
        *,
        settings: SplitMaskConfig,
    ) -> None:
        """Join the parts; of the settings, weight, temperature and pool of the contrast are read."""
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.vocabulary = vocabulary
        self.image_size = image_size
        self.strategy = SplitMask()
        self.contrast_weight = settings.contrast_weight
        self.temperature = settings.temperature
        self.negative_pool = settings.negative_pool

    @property
    def couples_samples(self) -> bool:
        """True, unless the contrast is left out."""
        return self.contrast_weight > 0.0

    @property
    def group_size(self) -> int:
        """Images of a validation pool."""
        return self.negative_pool if self.couples_samples else 1

    def forward(self, inputs: Inputs, *, seed: int) -> LossOutput:
        """Both terms, the negatives being the other images of the batch."""
        encoded = self.encode_samples(inputs, seed=seed)
        assert encoded.own is not None
        losses = encoded.own
        if self.couples_samples:
            losses = losses + self.compare(encoded.embeddings, first=0, gather=alone)
        return LossOutput(losses, encoded.num_tokens)

    def encode_samples(self, inputs: Inputs, *, seed: int) -> Encoded:
        """Unit vectors of the two halves, and the cross-entropy of each sample as its own loss."""
        grid = self.encoder.grid(*inputs.images.shape[-2:])
        split = self.strategy.sample(Grid(*grid), inputs.sample_ids, seed=seed, epoch=inputs.epochs)
        tokens = self.vocabulary(patchify(inputs.images, self.encoder.patch_size))
        num_patches = grid[0] * grid[1]
        entropy, views = torch.zeros(len(tokens), device=tokens.device), []
        for half in (split, split.complement()):
            filled = self._inpaint(inputs.images, half, grid)
            hidden = half.hidden
            named = token_cross_entropy(self.decoder.predict(filled), torch.take_along_dim(tokens, hidden, 1))
            entropy = entropy + named * (hidden.shape[1] / num_patches)  # halves of odd grids differ by one patch
            views.append(F.normalize(filled.float().mean(dim=1), dim=1))
        return Encoded(tuple(views), entropy, len(tokens) * num_patches)

    def compare(
        self, embeddings: tuple[Float[Tensor, "b e"], ...], *, first: int, gather: Gather
    ) -> Float[Tensor, " b"]:
        """contrast_weight · InfoNCE between the two halves, over the images of all processes."""
        one, other = embeddings
        scale = torch.tensor(1.0 / self.temperature, device=one.device)
        return self.contrast_weight * info_nce(one, other, scale, first=first, gather=gather)

    def validation_losses(self, inputs: Inputs, *, seed: int, chunk_size: int) -> dict[str, Float[Tensor, " b"]]:
        """The "loss" within pools of `negative_pool` images, and its two terms: "inpainting", "contrast"."""
        parts = [
            self.encode_samples(_part(inputs, slice(start, start + chunk_size)), seed=seed)
            for start in range(0, len(inputs.images), chunk_size)
        ]
        own = torch.cat([part.own for part in parts if part.own is not None])
        if not self.couples_samples:
            return {"loss": own}
        views = [torch.cat([part.embeddings[side] for part in parts]).split(self.negative_pool) for side in (0, 1)]
        contrast = torch.cat([self.compare(pool, first=0, gather=alone) for pool in zip(*views, strict=True)])
        return {"loss": own + contrast, "inpainting": own, "contrast": contrast}

    def card(self) -> ValidationCard:
        """Target (with the hash of its vocabulary), reduction, mask and pool of this objective."""
        return ValidationCard(
            target_normalisation=f"patch_vocabulary {len(self.vocabulary)} {self.vocabulary.content_hash}",
            reduction="all_patches" if not self.couples_samples else f"all_patches + {self.contrast_weight:g} samples",
            mask=self.strategy.describe(),
            realised_ratio=self.strategy.realised_ratio(Grid(*self.encoder.grid(*self.image_size))),
            negative_pool=self.group_size if self.couples_samples else 0,
        )

    def _inpaint(
        self, images: Float[Tensor, "b c h w"], half: Partition[Tensor], grid: tuple[int, int]
    ) -> Float[Tensor, "b m d"]:
        """What the decoder puts in the places of the hidden half, from the kept half alone."""
        keep = half.keep
        latent = self.encoder.encode(self.encoder.embed(images, keep), grid, keep)
        rows, cols = self.encoder.grid(*self.image_size)
        positions = sin_cos_position(*grid, self.decoder.width, base_rows=rows, base_cols=cols, device=latent.device)
        return self.decoder.hidden_features(
            latent, half, positions, num_prefix=self.encoder.num_prefix_tokens, permuted=True
        )


def _part(inputs: Inputs, rows: slice) -> Inputs:
    return replace(
        inputs,
        images=inputs.images[rows],
        sample_ids=inputs.sample_ids[rows],
        epochs=inputs.epochs[rows],
        captions=None,
        all_captions=(),
    )
