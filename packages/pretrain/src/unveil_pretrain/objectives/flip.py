"""FLIP (arXiv:2212.00794): contrastive image-text training in which most image patches are dropped before the blocks.

Patches are removed, not replaced; the text is never masked; the loss is the symmetric InfoNCE with a learned, clipped
temperature. Validation compares every pair with a fixed pool of others, so that its loss depends neither on the batch
size nor on the order, and scores the pool twice: with the masks of training and with whole images.

Shapes: b pairs, n patches, k kept, d token width, e embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from unveil_backbones import Encoder, ImageTextPair, WordPieceTokenizer, create_text
from unveil_backbones.manifest import TextSpec
from unveil_masking import Grid, RandomMask, UnitMask

from unveil_pretrain.contrastive import info_nce
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import BuildContext, Inputs, LossOutput, Objective, ObjectiveConfig, ValidationCard

__all__ = ["FLIP", "FLIPConfig"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FLIPConfig(ObjectiveConfig):
    """Settings of FLIP."""

    name: ClassVar[str] = "flip"
    needs_captions: ClassVar[bool] = True

    mask_ratio: float = 0.5
    """Share of image patches to drop; 0 is CLIP. The kept count is rounded down."""
    text: str = "text_s"
    """Name of the text tower."""
    text_length: int = 32
    """Tokens of a caption after cutting or padding."""
    vocab_size: int = 30522
    """Largest vocabulary of the WordPiece tokenizer, which is trained on the training captions."""
    tokenizer_captions: int = 200_000
    """Captions of the training set, from its beginning, that the tokenizer is trained on."""
    embed_dim: int = 512
    """Width of the space in which images and texts are compared."""
    negative_pool: int = 100
    """Validation pairs that are compared with each other; the validation set is cut into pools in key order."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.mask_ratio < 1.0:
            raise ConfigError(f"mask_ratio is {self.mask_ratio}; give a number in [0, 1), for example 0.5")
        sizes = {
            "text_length": self.text_length,
            "vocab_size": self.vocab_size,
            "tokenizer_captions": self.tokenizer_captions,
            "embed_dim": self.embed_dim,
        }
        for field, value in sizes.items():
            if value < 1:
                raise ConfigError(f"{field} is {value}; give a positive number")
        if self.negative_pool < 2:
            raise ConfigError(f"negative_pool is {self.negative_pool}; give at least 2 pairs to compare")

    def build(self, context: BuildContext) -> "FLIP":
        """FLIP around the encoder; trains the tokenizer unless the context brings one.

        Raises:
            ConfigError: patches are to be dropped but the encoder needs all of its tokens.
        """
        encoder = context.encoder
        if not encoder.accepts_subset and self.mask_ratio > 0.0:
            raise ConfigError(
                f"flip drops patches, which {encoder.spec.name} cannot; choose a vit encoder, or mask_ratio 0"
            )
        tokenizer = (
            WordPieceTokenizer.from_json(context.tokenizer_json)
            if context.tokenizer_json is not None
            else WordPieceTokenizer.train(
                context.captions(self.tokenizer_captions), self.vocab_size, length=self.text_length
            )
        )
        text = create_text(self.text, vocab_size=tokenizer.vocab_size, length=self.text_length)
        pair = ImageTextPair(encoder, text, self.embed_dim)
        strategy = RandomMask(self.mask_ratio)
        if encoder.mask_unit != 1:
            strategy = UnitMask(encoder.mask_unit, self.mask_ratio, strategy.rounding)
        return FLIP(pair, tokenizer, strategy, context.image_size, negative_pool=self.negative_pool)


class FLIP(Objective):
    """Match images that lost patches with their captions."""

    encoder_prefix: ClassVar[str] = "pair.encoder."
    head_prefix: ClassVar[str] = ""  # the names in a state dict start with "pair.", as the checkpoint contract wants

    def __init__(
        self,
        pair: ImageTextPair,
        tokenizer: WordPieceTokenizer,
        strategy: RandomMask | UnitMask,
        image_size: tuple[int, int],
        *,
        negative_pool: int,
    ) -> None:
        """Join the two towers, the tokenizer and the masking strategy."""
        super().__init__()
        self.pair = pair
        self.tokenizer = tokenizer
        self.strategy = strategy
        self.image_size = image_size
        self.negative_pool = negative_pool

    @property
    def encoder(self) -> Encoder:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The image tower."""
        return self.pair.encoder

    @property
    def group_size(self) -> int:
        """Pairs of a validation pool."""
        return self.negative_pool

    @property
    def text_spec(self) -> TextSpec:
        """The text tower's description."""
        return self.pair.text.spec

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer, which travels with the checkpoint."""
        return self.tokenizer.to_json()

    def no_weight_decay(self) -> frozenset[str]:
        """The exempt parameters of both towers, and the temperature."""
        return frozenset(f"pair.{name}" for name in self.pair.no_weight_decay())

    def forward(self, inputs: Inputs, *, seed: int) -> LossOutput:
        """InfoNCE of each pair among the pairs of the batch."""
        images, num_tokens = self._embed_images(inputs, self.strategy, seed)
        texts = self._embed_texts(inputs)
        return LossOutput(info_nce(images, texts, self._scale()), num_tokens)

    def validation_losses(self, inputs: Inputs, *, seed: int, chunk_size: int) -> dict[str, Float[Tensor, " b"]]:
        """Losses within each pool of `negative_pool` pairs: "loss" under frozen masks, "unmasked" with whole images."""
        chunks = [_chunk(inputs, start, start + chunk_size) for start in range(0, len(inputs.images), chunk_size)]
        texts = torch.cat([self._embed_texts(chunk) for chunk in chunks])
        losses = {}
        for view, strategy in (("loss", self.strategy), ("unmasked", RandomMask(0.0))):
            images = torch.cat([self._embed_images(chunk, strategy, seed)[0] for chunk in chunks])
            pools = zip(images.split(self.negative_pool), texts.split(self.negative_pool), strict=True)
            losses[view] = torch.cat([info_nce(of_image, of_text, self._scale()) for of_image, of_text in pools])
        return losses

    def card(self) -> ValidationCard:
        """Target, reduction, mask and pool of this objective."""
        return ValidationCard(
            target_normalisation="none",
            reduction="samples",
            mask=self.strategy.describe(),
            realised_ratio=self.strategy.realised_ratio(Grid(*self.encoder.grid(*self.image_size))),
            negative_pool=self.negative_pool,
        )

    def _embed_images(
        self, inputs: Inputs, strategy: RandomMask | UnitMask, seed: int
    ) -> tuple[Float[Tensor, "b e"], int]:
        """Embeddings of masked images, and the number of patches that were encoded."""
        sides = self.encoder.grid(*inputs.images.shape[-2:])
        partition = strategy.sample(Grid(*sides), inputs.sample_ids, seed=seed, epoch=inputs.epochs)
        # Whole images need no selection, and encoders that cannot select take none.
        keep = partition.keep if partition.num_hidden else None
        kept = self.encoder.embed(inputs.images, keep)
        return self.pair.encode_image_tokens(kept, sides, keep), kept.shape[0] * kept.shape[1]

    def _embed_texts(self, inputs: Inputs) -> Float[Tensor, "b e"]:
        if inputs.captions is None:
            raise ConfigError("flip needs image-caption pairs; give shards whose samples hold a .txt or .json caption")
        return self.pair.encode_text(self.tokenizer(inputs.captions).to(inputs.images.device))

    def _scale(self) -> Float[Tensor, ""]:
        return self.pair.logit_scale.exp()


def _chunk(inputs: Inputs, start: int, stop: int) -> Inputs:
    captions: Sequence[str] | None = None if inputs.captions is None else inputs.captions[start:stop]
    return Inputs(inputs.images[start:stop], inputs.sample_ids[start:stop], inputs.epochs[start:stop], captions)
