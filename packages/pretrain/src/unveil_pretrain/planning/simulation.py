"""What one step holds at its peak, by running it on tensors without data: forward, loss, backward of a micro-batch.

The pair loss decides by the values of its logits how to go on, which needs data: a stand-in allocates what its usual
way on a CPU does (`contrastive.py`), which on CUDA is an approximation. Everything else is the code of the run.

Shapes: b samples of a micro-batch, l pairs of this process, g of all, e embedding width.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from unveil_backbones.position import sin_cos_position
from unveil_masking import MultiBlockMask

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import Inputs, Objective
from unveil_pretrain.objectives.flip import FLIP
from unveil_pretrain.objectives.ijepa import IJEPA
from unveil_pretrain.planning.cuda_rules import CudaRules
from unveil_pretrain.planning.fake_models import KNOWN, FixedMask, fake_objective
from unveil_pretrain.planning.storage_meter import StorageMeter

__all__ = ["Gradients", "Pairs", "Simulated", "simulate"]

Gradients = Literal["none", "there", "dropped"]
"""Before the backward pass there are none; or those of earlier micro-batches; or each is dropped once it is whole."""

_DRAWN = 64  # masks from which the lengths of I-JEPA's contexts and targets are taken


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """How many pairs meet in a contrastive loss."""

    own: int
    """Of this process in a step."""
    num_processes: int = 1
    """Processes that have as many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """Bytes of a simulated micro-batch."""

    weights: int
    """Parameters and buffers, all of them."""
    trained: int
    """Parameters that have gradients."""
    root: int
    """Trained and frozen parameters outside of blocks."""
    block: int
    """Parameters of the largest block."""
    largest: int
    """Those of the largest tensor."""
    peak: int
    """The most at once besides the weights, gradients included."""
    after_forward: int
    """At the end of the forward pass, likewise."""


def simulate(
    config: MimConfig | FlipConfig,
    *,
    micro_batch: int,
    pairs: Pairs,
    explicit_attention: bool,
    checkpointing: bool,
    gradients: Gradients,
) -> Simulated:
    """Run the forward and backward pass of a micro-batch without data.

    Args:
        config: What is trained.
        micro_batch: Samples computed at once.
        pairs: Those of the whole step, where pairs are compared.
        explicit_attention: As in `fake_objective`.
        checkpointing: Whether the encoder's blocks forget their inner activations.
        gradients: What is there before, and what becomes of them.

    Raises:
        ConfigError: the objective cannot be simulated.
        BackboneError: the encoder is unknown or the image size does not suit it.
    """
    if not isinstance(config.objective, KNOWN):
        raise ConfigError(f"the memory of {config.objective.name} is not known; give simmim, mae, flip or ijepa")
    half = config.precision == "bfloat16"
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    objective = fake_objective(
        config,
        mode,
        num_samples=micro_batch,
        explicit_attention=explicit_attention,
        half_blocks=half and gradients == "dropped",
    )
    objective.encoder.checkpoint_blocks = checkpointing
    sizes = _sizes(objective)
    lists = _latent_lists(objective, mode, micro_batch)
    rules = nullcontext() if explicit_attention else CudaRules()
    with mode, StorageMeter() as meter, rules:
        for tensor in (*objective.parameters(), *objective.buffers()):
            meter.add(tensor)
        weights = meter.now
        _prepare(objective, gradients)
        step = _Micro(config, objective, micro_batch, pairs, half, lists)
        meter.reset_peak()
        after_forward = step.run(lambda: meter.now)
        return Simulated(peak=meter.peak - weights, after_forward=after_forward - weights, **sizes)


def _sizes(objective: Objective) -> dict[str, int]:
    """Bytes in float32, whatever the fake tensors are."""
    blocks = [objective.get_submodule(name) for name in objective.block_names()]
    inside = [sum(4 * parameter.numel() for parameter in block.parameters()) for block in blocks]
    every = [4 * parameter.numel() for parameter in objective.parameters()]
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in objective.buffers())
    return {
        "weights": sum(every) + buffers,
        "trained": sum(4 * parameter.numel() for parameter in objective.parameters() if parameter.requires_grad),
        "root": sum(every) - sum(inside),
        "block": max(inside, default=0),
        "largest": max(every),
    }


def _prepare(objective: Objective, gradients: Gradients) -> None:
    for parameter in objective.parameters():
        if gradients == "there" and parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
        elif gradients == "dropped" and parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_drop)


def _drop(parameter: Tensor) -> None:
    parameter.grad = None


@dataclass(frozen=True, slots=True)
class _Micro:
    """One micro-batch of a step."""

    config: MimConfig | FlipConfig
    objective: Objective
    size: int
    pairs: Pairs
    half: bool
    lists: tuple[Tensor, ...]

    def run(self, now: Callable[[], int]) -> int:
        """Forward and backward; what was alive between them."""
        if isinstance(self.objective, FLIP):
            return self._pairs(self.objective, now)
        inputs = self._inputs()
        with self._autocast():
            losses = self._losses(inputs)
        held = now()
        losses.sum().backward()
        return held

    def _losses(self, inputs: Inputs) -> Float[Tensor, " b"]:
        if isinstance(self.objective, IJEPA):
            return _latent_losses(self.objective, inputs, self.lists)
        return self.objective(inputs, seed=0).per_sample

    def _pairs(self, objective: FLIP, now: Callable[[], int]) -> int:
        """All at once; or, where the step has several micro-batches, the loss first and then one of them again."""
        if self.size >= self.pairs.own:
            with self._autocast():
                encoded = objective.encode_samples(self._inputs(), seed=0)
                losses = self._compare(encoded.embeddings)
            if encoded.own is not None:
                losses = losses + encoded.own
            held = now()
            losses.sum().backward()
            return held
        width = objective.pair.embed_dim
        leaves = tuple(torch.empty(self.pairs.own, width, requires_grad=True) for _ in "ab")
        self._compare(leaves).sum().backward()
        with self._autocast():
            encoded = objective.encode_samples(self._inputs(), seed=0)
        held = now()
        outputs = [*encoded.embeddings, *([] if encoded.own is None else [encoded.own])]
        torch.autograd.backward(outputs, [torch.empty_like(output) for output in outputs])
        return held

    def _compare(self, embeddings: tuple[Tensor, ...]) -> Float[Tensor, " l"]:
        images, texts = (values.float() for values in embeddings)
        every = cast(Tensor, _Gathered.apply(texts, self.pairs.num_processes))
        return cast(Tensor, _PairLoss.apply(images, every, cast(FLIP, self.objective).loss.chunk_size))

    def _inputs(self) -> Inputs:
        """As `Normaliser` makes them: bytes, then numbers, which are changed in place."""
        pixels = torch.empty(self.size, 3, *self.config.image_size, dtype=torch.uint8)
        images, ids = pixels.to(torch.float32), torch.zeros(self.size, dtype=torch.int64)
        return Inputs(images, ids, ids, ["a"] * self.size if isinstance(self.objective, FLIP) else None)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.half)


def _latent_lists(objective: Objective, mode: FakeTensorMode, num_samples: int) -> tuple[Tensor, ...]:
    """I-JEPA's lists of context and target patches, as long as the longest of some masks; nothing for others."""
    mask = getattr(objective, "strategy", None)
    if not isinstance(objective, IJEPA) or not isinstance(mask, FixedMask):
        return ()
    ids = torch.arange(min(num_samples, _DRAWN))
    blocks = cast(MultiBlockMask, mask.strategy).targets(mask.real.grid, ids, seed=0)
    context = int((~mask.real.mask[: len(ids)]).sum(1).max())
    asked, num_targets = int(blocks.sum(2).max()), blocks.shape[1]
    with mode:
        places = torch.zeros(num_samples, context, dtype=torch.int64)
        targets = torch.zeros(num_samples, num_targets, asked, dtype=torch.int64)
        return places, places.bool(), targets, targets.bool()


def _latent_losses(objective: IJEPA, inputs: Inputs, lists: tuple[Tensor, ...]) -> Float[Tensor, " b"]:
    """`IJEPA.forward` with lists that are given; its own are as long as the data say."""
    places, seen, targets, asked = lists
    sides, encoder = objective.encoder.grid(*inputs.images.shape[-2:]), objective.encoder
    tokens = encoder.embed(inputs.images, places)
    context = encoder.encode_padded(tokens, sides, seen)[:, encoder.num_prefix_tokens :]
    positions = sin_cos_position(*sides, objective.predictor.width, base_rows=sides[0], base_cols=sides[1])
    predicted = objective.predictor(context, places, seen, targets, asked, positions)
    wanted = objective._targets(inputs.images, sides, targets)
    return F.smooth_l1_loss(predicted.float(), wanted, reduction="none").mean(dim=(1, 2, 3))


class _Gathered(torch.autograd.Function):
    """As `World.gather`: a row of each process, joined; the gradient is copied before it is summed."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, num_processes: int) -> Tensor:
        ctx.num_rows = len(rows)
        if num_processes == 1:
            return rows.view_as(rows)
        parts = [torch.empty_like(rows) for _ in range(num_processes)]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clone()[: ctx.num_rows], None


class _PairLoss(torch.autograd.Function):
    """Allocates what `contrastive.info_nce` does on its usual way; the numbers mean nothing."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, texts: Tensor, chunk: int) -> Tensor:
        scaled, columns, rows = images * 1.0, torch.zeros_like(texts[:, 0]), []
        for start in range(0, len(images), chunk):
            logits = scaled[start : start + chunk] @ texts.T
            rows.append(logits.exp_().sum(1))
            columns += logits.sum(0)
        ctx.save_for_backward(images, texts, torch.cat(rows), columns)
        ctx.chunk = chunk
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        images, texts, rows, columns = ctx.saved_tensors
        scaled = images * 1.0
        of_images, of_texts = torch.empty_like(scaled), torch.zeros_like(texts)
        for start in range(0, len(images), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits = scaled[part] @ texts.T
            logits.exp_().mul_(rows[part, None] + columns)
            torch.mm(logits, texts, out=of_images[part])
            of_texts.addmm_(logits.T, scaled[part])
        return of_images * 1.0, of_texts, None
