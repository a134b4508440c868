"""Losses between pairs over the global batch, exact and with memory linear in it.

Every process multiplies its own images with all texts, a block of rows at a time, and forgets the block: what the
backward pass needs of it is computed again. Both directions of InfoNCE come from that one product. The text-to-image
direction needs each column whole, of which a process has its own rows only; so the processes join their partial
log-sum-exps, one number per text, instead of multiplying once more.

With w processes that have b of B pairs each, a process spends 8·b·B·e operations (two separate directions, kept: 12)
and holds O(B·e + chunk·B) numbers instead of O(B²).

Shapes: b pairs of this process, g pairs of all processes, e embedding width.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from unveil_pretrain.objectives.base import Gather

__all__ = ["alone", "info_nce", "sigmoid_loss"]

_CHUNK_SIZE = 512
_LARGEST_EXPONENT = {torch.float32: 70.0, torch.float64: 600.0}
"""exp() of it, times a million terms, is finite; sums below exp(10 − it) may have lost terms and are not trusted."""


def alone(rows: Float[Tensor, "b e"]) -> Float[Tensor, "b e"]:
    """`Gather` of a single process: the rows themselves."""
    return rows


def info_nce(
    images: Float[Tensor, "b e"],
    texts: Float[Tensor, "b e"],
    scale: Float[Tensor, ""],
    *,
    first: int = 0,
    gather: Gather = alone,
    chunk_size: int = _CHUNK_SIZE,
) -> Float[Tensor, " b"]:
    """Symmetric contrastive loss (CLIP, arXiv:2103.00020): pair i is the positive, all other pairs are negatives.

    Args:
        images: L2-normalised image embeddings of this process.
        texts: L2-normalised text embeddings; row i belongs to image i.
        scale: Multiplier of the cosine similarities (the inverse temperature).
        first: Position of this process's first pair in the global batch.
        gather: Joins the rows of all processes; gradients flow back through it.
        chunk_size: Images whose similarities are held at once; the result does not depend on it beyond rounding.

    Returns:
        For each pair the mean of its image-to-text and its text-to-image cross-entropy, in nats.
    """
    images, texts, scale = _wide(images), _wide(texts), _wide(scale)
    rows, columns, own = _LogSumExps.apply(images, gather(texts), scale, first, chunk_size)
    own_columns = gather(columns[None]).logsumexp(0)[first : first + len(images)]
    return (rows + own_columns) / 2 - own


def sigmoid_loss(
    images: Float[Tensor, "b e"],
    texts: Float[Tensor, "b e"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
    *,
    first: int = 0,
    gather: Gather = alone,
    chunk_size: int = _CHUNK_SIZE,
) -> Float[Tensor, " b"]:
    """Pairwise sigmoid loss (SigLIP, arXiv:2303.15343): each image and text is asked whether they belong together.

    Args:
        images: L2-normalised image embeddings of this process.
        texts: L2-normalised text embeddings; row i belongs to image i.
        scale: Multiplier of the cosine similarities.
        bias: Added to every similarity after scaling.
        first: Position of this process's first pair in the global batch.
        gather: Joins the rows of all processes; gradients flow back through it.
        chunk_size: Images whose similarities are held at once; the result does not depend on it beyond rounding.

    Returns:
        For each image minus the sum over all texts of log sigmoid(±(scale · cosine + bias)), plus for its own text.
    """
    images, texts, scale, bias = _wide(images), _wide(texts), _wide(scale), _wide(bias)
    return _SigmoidSums.apply(images, gather(texts), scale, bias, first, chunk_size)


def _wide(values: Tensor) -> Tensor:
    """In float32 at least: logits of 100 in bfloat16 are wrong in the first decimal."""
    return values if values.dtype == torch.float64 else values.float()


class _Sums(NamedTuple):
    """Sums of exp(logit − shift); logarithms of the sums, and no shift, where one shift does not suit all logits."""

    rows: Float[Tensor, " b"]
    columns: Float[Tensor, " g"]
    own: Float[Tensor, " b"]
    """Logit of each image and its own text."""
    shift: float | None

    def logarithms(self) -> tuple[Float[Tensor, " b"], Float[Tensor, " g"]]:
        """Log-sum-exp of each row and of each column."""
        if self.shift is None:
            return self.rows.clone(), self.columns.clone()
        return self.rows.log().add_(self.shift), self.columns.log().add_(self.shift)


class _LogSumExps(torch.autograd.Function):
    """Log-sum-exp of each row [b] and each column [g] of scale · images · textsᵀ, and the own pairs' logits [b]."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Float[Tensor, "b e"],
        texts: Float[Tensor, "g e"],
        scale: Float[Tensor, ""],
        first: int,
        chunk_size: int,
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, " g"], Float[Tensor, " b"]]:
        with _full_precision(images):
            blocks = _Blocks(images * scale, texts, first, chunk_size)
            # Whether one shift suits all is read from the numbers: an accelerator would wait, a compiler break off.
            may_look = images.device.type == "cpu" and not torch.compiler.is_compiling()
            sums = (_fast_sums(blocks) if may_look else None) or _safe_sums(blocks)
        ctx.save_for_backward(images, texts, scale, sums.rows, sums.columns)
        ctx.settings = first, chunk_size, sums.shift
        return *sums.logarithms(), sums.own

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        to_rows, to_columns, to_own = gradients
        images, texts, scale, rows, columns = ctx.saved_tensors
        first, chunk_size, shift = ctx.settings

        def slope(logits: Tensor, own: Tensor, part: slice) -> Tensor:
            """Gradients with respect to the logits of some rows, written over them."""
            if shift is None:
                towards_rows = (logits - rows[part, None]).exp_().mul_(to_rows[part, None])
                logits.sub_(columns).exp_().mul_(to_columns).add_(towards_rows)
            else:
                factors = (to_rows[part] / rows[part])[:, None] + to_columns / columns
                _shifted(logits, shift).exp_().mul_(factors)
            own.add_(to_own[part])
            return logits

        with _full_precision(images):
            of_images, of_texts = _Blocks(images * scale, texts, first, chunk_size).gradients(slope)
            return of_images * scale, of_texts, (images * of_images).sum(), None, None


class _SigmoidSums(torch.autograd.Function):
    """Σ softplus(±(scale · images · textsᵀ + bias)) over each row [b], minus for the own text."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Float[Tensor, "b e"],
        texts: Float[Tensor, "g e"],
        scale: Float[Tensor, ""],
        bias: Float[Tensor, ""],
        first: int,
        chunk_size: int,
    ) -> Float[Tensor, " b"]:
        sums = []
        with _full_precision(images):
            for logits, own, _ in _Blocks(images * scale, texts, first, chunk_size):
                logits.add_(bias)
                own.neg_()
                # Beyond 40 softplus(z) is z, in float64 too.
                sums.append(F.softplus(logits, threshold=40.0).sum(1))
        ctx.save_for_backward(images, texts, scale, bias)
        ctx.settings = first, chunk_size
        return torch.cat(sums)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (to_rows,) = gradients
        images, texts, scale, bias = ctx.saved_tensors
        first, chunk_size = ctx.settings
        of_bias = torch.zeros_like(bias)

        def slope(logits: Tensor, own: Tensor, part: slice) -> Tensor:
            logits.add_(bias)
            own.neg_()
            logits.sigmoid_().mul_(to_rows[part, None])
            own.neg_()
            of_bias.add_(logits.sum())
            return logits

        with _full_precision(images):
            of_images, of_texts = _Blocks(images * scale, texts, first, chunk_size).gradients(slope)
            return of_images * scale, of_texts, (images * of_images).sum(), of_bias, None, None


class _Blocks:
    """The logits of some rows at a time: a pass over them holds one block, and another pass computes it again."""

    def __init__(self, scaled: Float[Tensor, "b e"], texts: Float[Tensor, "g e"], first: int, chunk_size: int) -> None:
        """Of the scaled images of a process, the first of which belongs to text `first`, and all texts."""
        self.scaled, self.texts, self._first, self._chunk_size = scaled, texts, first, chunk_size

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "c g"], Float[Tensor, " c"], slice]]:
        """Logits, a view of those of the own pairs, and which rows they are; both may be written over."""
        for start in range(0, len(self.scaled), self._chunk_size):
            part = slice(start, start + self._chunk_size)
            logits = self.scaled[part] @ self.texts.T
            yield logits, logits.diagonal(self._first + start)[: len(logits)], part

    def gradients(
        self, slope: Callable[[Tensor, Tensor, slice], Tensor]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, "g e"]]:
        """Slopes · texts, and slopesᵀ · scaled images; `slope` makes slopes of a block's logits, own pairs and rows."""
        of_images, of_texts = torch.empty_like(self.scaled), torch.zeros_like(self.texts)
        for logits, own, part in self:
            slopes = slope(logits, own, part)
            torch.mm(slopes, self.texts, out=of_images[part])
            of_texts.addmm_(slopes.T, self.scaled[part])
        return of_images, of_texts


def _full_precision(images: Tensor) -> torch.autocast:
    return torch.autocast(images.device.type, enabled=False)


def _shifted(logits: Tensor, shift: float) -> Tensor:
    return logits.sub_(shift) if shift else logits


def _fast_sums(blocks: _Blocks) -> _Sums | None:
    """One exp() per logit, none of them relative to its row's or column's largest; None if a sum cannot be trusted.

    No logit exceeds the product of the longest vectors. Up to a product of 70 (a temperature of 1/70) nothing is
    shifted at all; beyond, only rows and columns without any similar pair fall below what float32 can hold.
    """
    largest = _LARGEST_EXPONENT[blocks.scaled.dtype]
    bound = float(blocks.scaled.norm(dim=1).amax() * blocks.texts.norm(dim=1).amax())
    if not math.isfinite(bound):
        return None
    shift = max(0.0, bound - largest)
    rows, own_logits, columns = [], [], torch.zeros_like(blocks.texts[:, 0])
    for logits, own, _ in blocks:
        own_logits.append(own.clone())
        exponentials = _shifted(logits, shift).exp_()
        rows.append(exponentials.sum(1))
        columns += exponentials.sum(0)
    row_sums = torch.cat(rows)
    least = torch.stack([row_sums.amin(), columns.amin()]).amin()
    if float(least.log()) < 10.0 - largest:
        return None
    return _Sums(row_sums, columns, torch.cat(own_logits), shift)


def _safe_sums(blocks: _Blocks) -> _Sums:
    """Each row and each column relative to its own largest logit, whatever their range."""
    rows, own_logits, columns = [], [], torch.full_like(blocks.texts[:, 0], -math.inf)
    for logits, own, _ in blocks:
        own_logits.append(own.clone())
        rows.append(logits.logsumexp(1))
        columns = torch.logaddexp(columns, logits.logsumexp(0))
    return _Sums(torch.cat(rows), columns, torch.cat(own_logits), None)
