"""FLIP's two towers and their loss (arXiv:2212.00794); its settings are in `flip.py`.

Validation compares every pair with a fixed pool of others, so that its loss depends neither on the batch size nor on
the order, and scores the pool twice: with the masks of training ("loss") and with whole images and captions
("unmasked"). It also ranks the whole validation set for zero-shot retrieval.

Shapes: b pairs, n patches, k kept, d token width, e embedding width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from unveil_backbones import Encoder, ImageTextPair
from unveil_backbones.manifest import TextSpec
from unveil_backbones.tokenizer_base import CaptionTokenizer
from unveil_masking import Grid, Partition, RandomMask, ResizeReduction, UnitMask

from unveil_pretrain.contrastive import alone, info_nce, sigmoid_loss
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import Encoded, Gather, Inputs, LossOutput, Objective, Scored, ValidationCard
from unveil_pretrain.objectives.flip_text import TextInput
from unveil_pretrain.objectives.reconstruction import Reconstruction
from unveil_pretrain.retrieval import retrieval_rows, retrieval_scores

__all__ = ["FLIP", "PairLoss", "PairLossSettings", "Reduction"]

PairLoss = Literal["infonce", "sigmoid"]
"""How pairs are compared: InfoNCE (CLIP, FLIP) or one yes-or-no question for each pair (SigLIP)."""

Reduction = RandomMask | UnitMask | ResizeReduction
"""How images are made shorter: patches are dropped, or the whole image is made smaller."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairLossSettings:
    """How pairs are compared."""

    kind: PairLoss
    """Which loss."""
    initial_bias: float
    """What `sigmoid` adds to every similarity at first; it is learned."""
    chunk_size: int
    """Images whose similarities to all texts are held at once."""


class _Extras(nn.Module):
    """What is thrown away after pre-training, under the names that checkpoints keep for it."""

    def __init__(
        self, reconstruction: Reconstruction | None, logit_bias: float | None, table: Int64[Tensor, " v"] | None
    ) -> None:
        super().__init__()
        self.reconstruction = reconstruction
        self.logit_bias = None if logit_bias is None else nn.Parameter(torch.tensor(logit_bias))
        self.text_table: Tensor | None
        self.register_buffer("text_table", table)


class FLIP(Objective):
    """Match images that lost patches with their captions."""

    encoder_prefix: ClassVar[str] = "pair.encoder."
    head_prefix: ClassVar[str] = ""  # names in a state dict start with "pair." or "objective.", as the contract wants

    def __init__(
        self,
        pair: ImageTextPair,
        text: TextInput,
        strategy: Reduction,
        image_size: tuple[int, int],
        *,
        loss: PairLossSettings,
        negative_pool: int,
        reconstruction: Reconstruction | None = None,
        table: Int64[Tensor, " v"] | None = None,
    ) -> None:
        """Join the two towers, what makes their inputs, and the loss.

        Args:
            pair: The towers.
            text: Makes pieces of captions.
            strategy: Shortens images in training.
            image_size: Height and width of the training images.
            loss: How pairs are compared.
            negative_pool: Pairs of a validation pool.
            reconstruction: MAE's head, where it is wanted.
            table: What the way of masking texts knows of the vocabulary.
        """
        super().__init__()
        self.pair = pair
        self.text_input = text
        self.strategy: Reduction = strategy
        self.image_size = image_size
        self.loss = loss
        self.negative_pool = negative_pool
        self.objective = _Extras(reconstruction, loss.initial_bias if loss.kind == "sigmoid" else None, table)

    @property
    def encoder(self) -> Encoder:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The image tower."""
        return self.pair.encoder

    @property
    def couples_samples(self) -> bool:
        """Every pair is compared with all others of the global batch."""
        return True

    @property
    def group_size(self) -> int:
        """Pairs of a validation pool."""
        return self.negative_pool

    @property
    def text_spec(self) -> TextSpec:
        """The text tower's description."""
        return self.pair.text.spec

    @property
    def tokenizer(self) -> CaptionTokenizer:
        """Makes pieces of captions."""
        return self.text_input.tokenizer

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer, which travels with the checkpoint."""
        return self.tokenizer.to_json()

    def no_weight_decay(self) -> frozenset[str]:
        """The exempt parameters of both towers, and the temperature."""
        return frozenset(f"pair.{name}" for name in self.pair.no_weight_decay())

    def forward(self, inputs: Inputs, *, seed: int) -> LossOutput:
        """Loss of each pair among the pairs of the batch, and of its reconstruction where there is one."""
        encoded = self.encode_samples(inputs, seed=seed)
        losses = self.compare(encoded.embeddings, first=0, gather=alone)
        return LossOutput(losses if encoded.own is None else losses + encoded.own, encoded.num_tokens)

    def encode_samples(self, inputs: Inputs, *, seed: int) -> Encoded:
        """Unit vectors of masked images and of their captions; the reconstruction is the samples' own loss."""
        images, num_tokens, own = self._encode_images(inputs, seed)
        if own is not None and self.objective.reconstruction is not None:
            own = own * self.objective.reconstruction.weight
        return Encoded((images, self._encode_texts(inputs, seed)), own, num_tokens)

    def compare(
        self, embeddings: tuple[Float[Tensor, "b e"], ...], *, first: int, gather: Gather
    ) -> Float[Tensor, " b"]:
        """Loss of each pair of this process among the pairs of all processes."""
        images, texts = embeddings
        scale, chunk_size = self.pair.logit_scale.exp(), self.loss.chunk_size
        if self.objective.logit_bias is None:
            return info_nce(images, texts, scale, first=first, gather=gather, chunk_size=chunk_size)
        bias = self.objective.logit_bias
        return sigmoid_loss(images, texts, scale, bias, first=first, gather=gather, chunk_size=chunk_size)

    def after_update(self, progress: float) -> None:
        """Take the temperature back into its range."""
        del progress
        self.pair.clip_logit_scale()

    def score_samples(self, inputs: Inputs, *, seed: int, chunk_size: int) -> Scored:
        """Losses within each pool under frozen masks and unmasked; vectors of both and of all captions, for retrieval.

        The unmasked view, and the vectors, do not depend on the mask and are given for the first mask only.
        """
        chunks = [_rows(inputs, start, start + chunk_size) for start in range(0, len(inputs.images), chunk_size)]
        encoded = [self._encode_images(chunk, seed) for chunk in chunks]
        images = torch.cat([one[0] for one in encoded])
        texts = torch.cat([self._encode_texts(chunk, seed) for chunk in chunks])
        losses = {"loss": self._by_pool(images, texts)}
        own = [one[2] for one in encoded if one[2] is not None]
        if own:
            losses["reconstruction"] = torch.cat(own)
        if bool(inputs.epochs.any()):
            return Scored(losses=losses)
        whole = images
        if self.card().realised_ratio > 0.0:
            whole = torch.cat([self.pair.encode_image(chunk.images) for chunk in chunks])
        captions = inputs.all_captions or [(caption,) for caption in _captions(inputs)]
        every = [caption for of_image in captions for caption in of_image]
        vectors = torch.cat([
            self.pair.encode_text(self.text_input.whole(every[start : start + chunk_size]))
            for start in range(0, len(every), chunk_size)
        ])  # fmt: skip
        counts = torch.tensor([len(of_image) for of_image in captions], device=vectors.device)
        losses["unmasked"] = self._by_pool(whole, vectors[counts.cumsum(0) - counts])
        shortened = {"masked": images} if self.card().realised_ratio > 0.0 else {}
        return Scored(losses=losses, rows=retrieval_rows({"": whole, **shortened}, vectors, captions))

    def validation_losses(self, inputs: Inputs, *, seed: int, chunk_size: int) -> dict[str, Float[Tensor, " b"]]:
        """The losses of `score_samples`."""
        return dict(self.score_samples(inputs, seed=seed, chunk_size=chunk_size).losses)

    def set_scores(self, rows: Mapping[str, Shaped[Tensor, "r *e"]]) -> dict[str, Float[Tensor, " n"]]:
        """Zero-shot retrieval among all validation samples."""
        return retrieval_scores(rows)

    def card(self) -> ValidationCard:
        """Target, reduction, mask and pool of this objective."""
        return ValidationCard(
            target_normalisation="none",
            reduction="samples" if self.loss.kind == "infonce" else "samples_sigmoid",
            mask={**self.strategy.describe(), **self.text_input.describe()},
            realised_ratio=self.strategy.realised_ratio(Grid(*self.encoder.grid(*self.image_size))),
            negative_pool=self.negative_pool,
        )

    def _by_pool(self, images: Float[Tensor, "b e"], texts: Float[Tensor, "b e"]) -> Float[Tensor, " b"]:
        pools = zip(images.split(self.negative_pool), texts.split(self.negative_pool), strict=True)
        return torch.cat([self.compare(pool, first=0, gather=alone) for pool in pools])

    def _encode_images(self, inputs: Inputs, seed: int) -> tuple[Float[Tensor, "b e"], int, Float[Tensor, " b"] | None]:
        """Unit vectors of shortened images, the patches that were encoded, and the loss of reconstruction, if any."""
        if isinstance(self.strategy, ResizeReduction):
            images = self.strategy.resize(inputs.images, self.encoder.patch_size)
            rows, cols = self.encoder.grid(*images.shape[-2:])
            return self.pair.encode_image(images), len(images) * rows * cols, None
        sides = self.encoder.grid(*inputs.images.shape[-2:])
        partition: Partition[Tensor] = self.strategy.sample(
            Grid(*sides), inputs.sample_ids, seed=seed, epoch=inputs.epochs
        )
        # Whole images need no selection, and encoders that cannot select take none.
        keep = partition.keep if partition.num_hidden else None
        kept = self.encoder.embed(inputs.images, keep)
        num_tokens = kept.shape[0] * kept.shape[1]
        head = self.objective.reconstruction
        if head is None or keep is None:
            return self.pair.encode_image_tokens(kept, sides, keep), num_tokens, None
        encoded = self.encoder.encode(kept, sides, keep)
        return self.pair.image_vectors(encoded), num_tokens, head(encoded, inputs.images, partition)

    def _encode_texts(self, inputs: Inputs, seed: int) -> Float[Tensor, "b e"]:
        ids, positions = self.text_input.masked(
            _captions(inputs),
            sample_ids=inputs.sample_ids,
            epochs=inputs.epochs,
            seed=seed,
            table=self.objective.text_table,
        )
        return self.pair.encode_text(ids, positions)


def _captions(inputs: Inputs) -> Sequence[str]:
    if inputs.captions is None:
        raise ConfigError("flip needs image-caption pairs; give shards whose samples hold a .txt or .json caption")
    return inputs.captions


def _rows(inputs: Inputs, start: int, stop: int) -> Inputs:
    return replace(
        inputs,
        images=inputs.images[start:stop],
        sample_ids=inputs.sample_ids[start:stop],
        epochs=inputs.epochs[start:stop],
        captions=None if inputs.captions is None else inputs.captions[start:stop],
        all_captions=inputs.all_captions[start:stop],
    )
