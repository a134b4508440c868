"""The gradients of one step, equal however its batch is cut: into micro-batches, and over processes.

Masks, crops and stochastic depth are functions of the sample, so a sample's part of the loss does not depend on what
it is computed with. Where samples do not meet, gradients of micro-batches add up, and processes exchange them once,
during the last backward pass (`gradient_sums.py`). Where they do (contrastive losses), GradCache (Gao et al.,
arXiv:2101.06983) is exact too: all embeddings first, without a graph; then the loss and its gradient with respect to
them; then the encoders again, micro-batch by micro-batch, backwards from those gradients.

Shapes: b samples of this process, g of all processes, e embedding width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unveil_pretrain.data import Batch
from unveil_pretrain.gradient_sums import GradientSums, summed_gradients
from unveil_pretrain.objectives.base import Encoded, Inputs, Objective
from unveil_pretrain.stochastic_depth import StochasticDepth
from unveil_pretrain.world import World

__all__ = ["GradientStep", "StepLosses", "rows_of"]


@dataclass(frozen=True, slots=True)
class StepLosses:
    """What the forward passes of a step gave on this process: a loss per sample, and image tokens encoded."""

    per_sample: Float[Tensor, " b"]
    num_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientStep:
    """Fills the gradients of an objective with those of the mean loss over the batches of all processes."""

    objective: Objective
    depth: StochasticDepth
    normalise: Callable[[Batch], Inputs]
    """Moves a batch to the device and normalises it."""
    world: World
    device: torch.device
    seed: int
    """Seed of masks and stochastic depth."""
    micro_batch_size: int = 0
    """Samples to compute at once on each process; 0 for all of them. Only memory and rounding depend on it."""
    bfloat16: bool = False
    """Whether to compute under bfloat16 autocast."""

    def __call__(self, batch: Batch) -> StepLosses:
        """Add this step's gradients; `batch` is the part of this process, of the same size on each.

        Every process ends with the same gradients. The gradients have to be None or zero before.
        """
        size = self.micro_batch_size or len(batch.sample_ids)
        starts = range(0, len(batch.sample_ids), size)
        parts = [rows_of(batch, slice(start, start + size)) for start in starts]
        with summed_gradients(self.world, self.objective) as sums:
            return self._coupled(parts, sums) if self.objective.couples_samples else self._separate(parts, sums)

    def _separate(self, parts: list[Batch], sums: GradientSums) -> StepLosses:
        per_sample, num_tokens = [], 0
        share = self._share(parts)
        for index, inputs in enumerate(self._inputs(parts)):
            if index == len(parts) - 1:
                sums.last_pass()
            with self._autocast():
                output = self.objective(inputs, seed=self.seed)
            (output.per_sample.sum() * share).backward()
            per_sample.append(output.per_sample.detach())
            num_tokens += output.num_tokens
        return StepLosses(torch.cat(per_sample), num_tokens)

    def _coupled(self, parts: list[Batch], sums: GradientSums) -> StepLosses:
        if len(parts) == 1:
            sums.last_pass()
            encoded = self._encode(next(self._inputs(parts)))
            sums.hold_until(encoded.embeddings)
            losses = _with_own(self._compare(encoded.embeddings), encoded.own)
            (losses.sum() * self._share(parts)).backward()
            return StepLosses(losses.detach(), encoded.num_tokens)
        with torch.no_grad():
            known = [self._encode(inputs) for inputs in self._inputs(parts)]
        leaves = [torch.cat(rows).requires_grad_() for rows in zip(*(one.embeddings for one in known), strict=True)]
        between = self._compare(tuple(leaves))
        (between.sum() * self._share(parts)).backward()
        self._encode_again(parts, leaves, sums)
        own = None if known[0].own is None else torch.cat([one.own for one in known if one.own is not None])
        return StepLosses(_with_own(between, own).detach(), sum(one.num_tokens for one in known))

    def _encode_again(self, parts: list[Batch], leaves: list[Tensor], sums: GradientSums) -> None:
        """Second pass: each part's gradients from those of its embeddings and from its own losses."""
        share, first = self._share(parts), 0
        for index, inputs in enumerate(self._inputs(parts)):
            if index == len(parts) - 1:
                sums.last_pass()
            encoded, last = self._encode(inputs), first + len(inputs.sample_ids)
            outputs, gradients = list(encoded.embeddings), [_gradient(leaf)[first:last] for leaf in leaves]
            if encoded.own is not None:
                outputs.append(encoded.own)
                gradients.append(torch.full_like(encoded.own, share))
            torch.autograd.backward(outputs, gradients)
            first = last

    def _inputs(self, parts: list[Batch]) -> Iterator[Inputs]:
        """One part at a time on the device, with its stochastic depth decided."""
        for part in parts:
            inputs = self.normalise(part)
            self.depth.choose(inputs, seed=self.seed)
            yield inputs

    def _encode(self, inputs: Inputs) -> Encoded:
        with self._autocast():
            return self.objective.encode_samples(inputs, seed=self.seed)

    def _compare(self, embeddings: tuple[Tensor, ...]) -> Float[Tensor, " b"]:
        first = self.world.rank * len(embeddings[0])
        with self._autocast():
            return self.objective.compare(embeddings, first=first, gather=self.world.gather)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)

    def _share(self, parts: list[Batch]) -> float:
        """Weight of a sample in the loss of the step."""
        return 1.0 / (sum(len(part.sample_ids) for part in parts) * self.world.size)


def rows_of(batch: Batch, rows: slice) -> Batch:
    """Some samples of a batch."""
    return replace(
        batch,
        images=batch.images[rows],
        sample_ids=batch.sample_ids[rows],
        epochs=batch.epochs[rows],
        captions=None if batch.captions is None else batch.captions[rows],
    )


def _with_own(between: Float[Tensor, " b"], own: Float[Tensor, " b"] | None) -> Float[Tensor, " b"]:
    return between if own is None else between + own


def _gradient(leaf: Tensor) -> Tensor:
    """The gradient of an embedding; one that the loss does not read has none, which counts as zero."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
