"""Scores of a finished image-text checkpoint, image by image: retrieval and the contrastive loss, under several views.

FLIP's table 1d (arXiv:2212.00794): images may be seen whole ("full"), with the patches of one mask ("masked"), or by
the mean vector of complementary masks that together cover every patch ("ensemble"). The masks are those of validation,
a function of (seed, sample id), so that two checkpoints see the same patches and are compared image by image.

Shapes: n images, e embedding width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor
from unveil_backbones import Checkpoint, ImageTextPair, load
from unveil_backbones.checkpoint import restore_pair
from unveil_backbones.tokenizer_base import CaptionTokenizer
from unveil_backbones.tokenizer_json import tokenizer_from_json
from unveil_masking import Grid, RandomMask

from unveil_pretrain.contrastive import info_nce, sigmoid_loss
from unveil_pretrain.data import PairDataset, val_batches
from unveil_pretrain.data.opening import open_samples
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.inputs import Normaliser
from unveil_pretrain.objectives.base import Inputs
from unveil_pretrain.patch_views import complementary_keeps, vectors_of_view
from unveil_pretrain.retrieval import retrieval_rows, retrieval_scores
from unveil_pretrain.validate import KeyOrder

__all__ = ["VIEWS", "FlipScores", "View", "score_pair"]

View = Literal["full", "masked", "ensemble"]
VIEWS: Final[tuple[View, ...]] = ("full", "masked", "ensemble")


_BIAS: Final = "objective.logit_bias"
"""Only pairs trained with the sigmoid loss have it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipScores:
    """What `score_pair` found."""

    checkpoint: str
    """SHA-256 of the checkpoint's manifest."""
    step: int
    """Updates of the checkpoint."""
    mask_ratio: float
    """Share of the patches that "masked" hides; "ensemble" covers all patches with masks of this ratio."""
    pool: int
    """Pairs that are compared with each other in the losses."""
    data_hash: str
    """Identity of the shards' samples."""
    recalls: Mapping[View, Mapping[str, np.ndarray]]
    """By view: "text_recall_1" and so on, float64 [n]."""
    losses: Mapping[View, np.ndarray]
    """By view: the loss of each pair (InfoNCE or sigmoid, whichever was trained) in a whole pool, float64 [up to n]."""

    @property
    def num_images(self) -> int:
        """Images that were scored."""
        return len(next(iter(next(iter(self.recalls.values())).values())))


def score_pair(
    path: Path,
    data: str,
    *,
    views: Sequence[View] = VIEWS,
    mask_ratio: float | None = None,
    pool: int | None = None,
    seed: int = 1_000_003,
    batch_size: int = 64,
    num_workers: int = 0,
    device: torch.device,
) -> FlipScores:
    """Score the pairs of some shards, each with all of its captions.

    Args:
        path: A checkpoint directory, or a run, whose newest checkpoint is taken.
        data: Shards, in webdataset's syntax.
        views: How images are seen.
        mask_ratio: Share of patches that "masked" and "ensemble" hide at once; that of training if None.
        pool: Pairs that are compared with each other in the losses; those of the checkpoint's validation if None, and
            at most all.
        seed: Seed of the masks.
        batch_size: Images to encode at once; no score depends on it beyond rounding.
        num_workers: Decoding processes.
        device: Where to compute.

    Raises:
        BackboneError: the checkpoint is damaged or no image-text pair.
        DataError: the shards cannot be read, or a sample has no image or caption.
        ConfigError: a view, the ratio or the pool is impossible.
    """
    checkpoint = load(path)
    manifest = checkpoint.manifest
    pair = restore_pair(checkpoint).to(device)
    pairs = PairDataset(open_samples(data), image_size=manifest.preprocessing.image_size)
    samples = KeyOrder(pairs, multiple_of=1)
    job = _Job(
        views=tuple(views),
        mask_ratio=_trained_ratio(checkpoint) if mask_ratio is None else mask_ratio,
        pool=_pool(checkpoint, pool, len(samples)),
        seed=seed,
        batch_size=batch_size,
        num_workers=num_workers,
        normalise=Normaliser(mean=manifest.preprocessing.mean, std=manifest.preprocessing.std, device=device),
    )
    rows = _encode(pair, tokenizer_from_json(checkpoint.tokenizer_json or ""), samples, job)
    scores = retrieval_scores(rows)
    scale = pair.logit_scale.detach().exp().cpu()
    bias = checkpoint.heads.get(_BIAS)
    return FlipScores(
        checkpoint=checkpoint.sha256,
        step=manifest.step,
        mask_ratio=job.mask_ratio,
        pool=job.pool,
        data_hash=pairs.content_hash,
        recalls={view: _of_view(scores, view) for view in job.views},
        losses={view: _losses(rows[f"images_{view}"], rows, scale, bias, job.pool) for view in job.views},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """How samples are encoded."""

    views: tuple[View, ...]
    mask_ratio: float
    pool: int
    seed: int
    batch_size: int
    num_workers: int
    normalise: Normaliser

    def __post_init__(self) -> None:
        if not self.views or not set(self.views) <= set(VIEWS):
            raise ConfigError(f"views are {', '.join(self.views) or 'none'}; give some of {', '.join(VIEWS)}")
        if not 0.0 <= self.mask_ratio < 1.0:
            raise ConfigError(f"mask_ratio is {self.mask_ratio}; give a number in [0, 1), for example 0.5")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; give at least one image")


def _trained_ratio(checkpoint: Checkpoint) -> float:
    """The ratio as it was set: the realised one, rounded again, may keep a patch fewer."""
    ratio = checkpoint.manifest.mask.get("ratio")
    return float(ratio) if isinstance(ratio, int | float) else checkpoint.manifest.realised_ratio


def _pool(checkpoint: Checkpoint, pool: int | None, num_images: int) -> int:
    passport = checkpoint.manifest.passport
    chosen = pool if pool is not None else (passport.negative_pool if passport else 0) or num_images
    if not 2 <= chosen <= num_images:
        raise ConfigError(f"the pool is {chosen} pairs, the data has {num_images}; give 2 to {num_images} with --pool")
    return chosen


def _of_view(scores: Mapping[str, Tensor], view: View) -> dict[str, np.ndarray]:
    prefix = f"{view}_"
    return {name.removeprefix(prefix): value.numpy() for name, value in scores.items() if name.startswith(prefix)}


@torch.no_grad()
def _encode(pair: ImageTextPair, tokenizer: CaptionTokenizer, samples: KeyOrder, job: "_Job") -> dict[str, Tensor]:
    """The rows of `retrieval_rows` for every view, over all samples."""
    parts: list[dict[str, Tensor]] = []
    for batch in val_batches(samples, batch_size=job.batch_size, num_workers=job.num_workers):
        inputs = job.normalise(batch)
        captions = [caption for of_image in inputs.all_captions for caption in of_image]
        texts = torch.cat([
            pair.encode_text(tokenizer(captions[start : start + job.batch_size]))
            for start in range(0, len(captions), job.batch_size)
        ])  # fmt: skip
        images = {view: _vectors(pair, inputs, view, job) for view in job.views}
        parts.append(retrieval_rows(images, texts, inputs.all_captions))
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}


def _vectors(pair: ImageTextPair, inputs: Inputs, view: View, job: "_Job") -> Tensor:
    if view == "full":
        return pair.encode_image(inputs.images)
    rows, cols = pair.encoder.grid(inputs.images.shape[-2], inputs.images.shape[-1])
    num_kept = rows * cols - RandomMask(job.mask_ratio).num_hidden(Grid(rows, cols))
    keeps = complementary_keeps(inputs.sample_ids, rows * cols, num_kept, seed=job.seed)
    return vectors_of_view(pair, inputs.images, keeps if view == "ensemble" else keeps[:1])


def _losses(images: Tensor, rows: Mapping[str, Tensor], scale: Tensor, bias: Tensor | None, pool: int) -> np.ndarray:
    """The loss that was trained of each image with its first caption, in whole pools in the order of the keys."""

    def loss(of_image: Tensor, of_text: Tensor) -> Tensor:
        if bias is None:
            return info_nce(of_image, of_text, scale)
        return sigmoid_loss(of_image, of_text, scale, bias.cpu())

    num_texts = rows["num_texts"]
    texts = rows["texts"][num_texts.cumsum(0) - num_texts]
    used = len(images) // pool * pool
    pools = zip(images[:used].split(pool), texts[:used].split(pool), strict=True)
    return torch.cat([loss(of_image, of_text) for of_image, of_text in pools]).double().numpy()
