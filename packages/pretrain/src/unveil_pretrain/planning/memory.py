"""Peak memory of a training step, from the settings alone.

A step holds the weights, their gradients, AdamW's two averages, and, at the end of the forward pass, whatever the
backward pass will need. The last part is linear in the samples that are computed at once (the micro-batch). For the
encoder it is counted: its forward pass runs on tensors without data, and the sizes of what autograd keeps are summed.
Decoders and text towers are counted by a formula for a transformer block with fused attention, which keeps 16 numbers
per token and channel: the inputs of both norms, of the two attention layers, of query, key and value, and of the two
layers of the MLP and their activation.

Not in it: the process itself and its libraries (a few hundred MB; on CUDA also the context, some 0.5 GB), data on their
way in, similarities between the samples of a batch, and what an allocator cannot use again. On CUDA AdamW computes on
all weights at once, which costs one more copy of them for a moment. How far the model is off is in docs/planning.md.

Under bfloat16 the inputs of the matrix products are kept in two bytes, those of the norms in four, and the weights
exist in both: a block keeps 36 instead of 64 bytes per token and channel. The encoder's count is scaled likewise.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from unveil_backbones import Encoder, create, create_text

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.objectives.mae import MAEConfig, MAEDecoder
from unveil_pretrain.objectives.simmim import SimMIMConfig
from unveil_pretrain.planning.flops import sample_flops

__all__ = ["StepMemory", "step_memory"]

_FLOAT = 4
_KEPT_PER_CHANNEL = 16  # numbers that a block keeps per token and channel
_HALF = 36 / 64  # share of the bytes that a block keeps under bfloat16
_IMAGE_COPIES = 6  # uint8 and normalised pixels, target, prediction, their difference and its sign


@dataclass(frozen=True, kw_only=True, slots=True)
class StepMemory:
    """Bytes of a training step, part by part."""

    weights: int
    """Parameters; under bfloat16 also their copies of two bytes."""
    gradients: int
    """One number per parameter."""
    optimizer: int
    """AdamW's averages, and on CUDA the copy that an update makes."""
    per_sample: int
    """Activations of a sample."""
    shared: int
    """Activations of a batch, whatever its size."""
    micro_batch: int
    """Samples computed at once."""

    @property
    def activations(self) -> int:
        """Of all samples of a micro-batch."""
        return self.shared + self.micro_batch * self.per_sample

    @property
    def fixed(self) -> int:
        """What does not depend on the micro-batch."""
        return self.weights + self.gradients + self.optimizer + self.shared

    @property
    def total(self) -> int:
        """All of it: the peak, when the gradients of earlier micro-batches exist."""
        return self.fixed + self.micro_batch * self.per_sample


def step_memory(
    config: MimConfig | FlipConfig,
    *,
    micro_batch: int,
    device: Literal["cpu", "cuda"],
    checkpointing: bool = False,
) -> StepMemory:
    """Predict the peak memory of a step; nothing is allocated.

    Args:
        config: What is trained.
        micro_batch: Samples computed at once, at least 1.
        device: Where.
        checkpointing: Whether the blocks of the encoder forget their inner activations.

    Raises:
        ConfigError: the objective is not known here, or there is no sample.
        BackboneError: the encoder is unknown or the image size does not suit it.
    """
    if micro_batch < 1:
        raise ConfigError(f"micro_batch is {micro_batch}; give at least 1 sample")
    known = sample_flops(config)
    if not isinstance(config.objective, SimMIMConfig | MAEConfig | FLIPConfig):
        raise ConfigError(f"the memory of {config.objective.name} is not known; give simmim, mae or flip")
    with torch.device("meta"):
        encoder = create(config.encoder, image_size=config.image_size).train()
    per_sample, shared = _encoder_kept(encoder, config.image_size, known.num_encoded, checkpointing)
    parameters, kept = _rest(config, encoder, known.num_encoded)
    half = config.precision == "bfloat16"
    parameters += sum(parameter.numel() for parameter in encoder.parameters())
    blocks = per_sample + _FLOAT * kept
    images = _IMAGE_COPIES * 3 * config.image_size[0] * config.image_size[1] * _FLOAT
    return StepMemory(
        weights=parameters * (_FLOAT + (2 if half else 0)),
        gradients=parameters * _FLOAT,
        optimizer=parameters * _FLOAT * (3 if device == "cuda" else 2),
        per_sample=round(blocks * (_HALF if half else 1.0)) + images,
        shared=shared,
        micro_batch=micro_batch,
    )


def _encoder_kept(
    encoder: Encoder, image_size: tuple[int, int], num_encoded: int, checkpointing: bool
) -> tuple[int, int]:
    """Bytes that autograd keeps for a sample, and for a batch whatever its size; the difference of two batches.

    A checkpointed block computes its inner activations again, one block at a time: the largest is added.
    """
    # Faster ways of computing the same keep as much or less; some of them cannot run without data.
    encoder.set_optimisations({"kept_patches"} & set(encoder.OPTIMISATIONS))
    grid = encoder.grid(*image_size)
    subset = num_encoded if encoder.accepts_subset and num_encoded < grid[0] * grid[1] else None
    one, two, three = (_kept_bytes(encoder, batch, image_size, subset) for batch in (1, 2, 3))
    per_sample, shared = three - two, max(0, 2 * one - two)
    if not checkpointing:
        return per_sample, shared
    encoder.checkpoint_blocks = True
    two_inputs, three_inputs = (_kept_bytes(encoder, batch, image_size, subset) for batch in (2, 3))
    inputs = three_inputs - two_inputs
    return inputs + round((per_sample - inputs) / max(1, len(encoder.block_names()))), shared


def _kept_bytes(encoder: Encoder, batch: int, size: tuple[int, int], subset: int | None) -> int:
    images = torch.empty(batch, 3, *size, device="meta")
    keep = None if subset is None else torch.zeros(batch, subset, dtype=torch.int64, device="meta")
    with _counting(encoder) as kept:
        encoder.encode(encoder.embed(images, keep), encoder.grid(*size), keep)
    return sum(storage.nbytes() for storage in kept.values())


@contextmanager
def _counting(module: nn.Module) -> Iterator[dict[int, torch.UntypedStorage]]:
    """Collect the storages that autograd keeps, each once, and without the module's own."""
    own = {tensor.untyped_storage()._cdata for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _rest(config: MimConfig | FlipConfig, encoder: Encoder, num_encoded: int) -> tuple[int, int]:
    """Parameters outside the encoder, and numbers that autograd keeps there for a sample."""
    objective, (rows, cols) = config.objective, encoder.grid(*config.image_size)
    match objective:
        case MAEConfig():
            outputs = encoder.patch_size**2 * 3
            with torch.device("meta"):
                decoder = MAEDecoder(
                    encoder.width,
                    width=objective.decoder_width,
                    depth=objective.decoder_depth,
                    heads=objective.decoder_heads,
                    num_outputs=outputs,
                )
            tokens = encoder.num_prefix_tokens + rows * cols
            return _size(decoder), _blocks(tokens, objective.decoder_width, objective.decoder_depth)
        case FLIPConfig():
            with torch.device("meta"):
                text = create_text(objective.text, vocab_size=objective.vocab_size, length=objective.text_length)
            shape = text.config
            projections = (encoder.width + text.width) * objective.embed_dim
            return _size(text) + projections, _blocks(shape.length, shape.width, shape.depth)
        case _:
            return encoder.width * 3 * encoder.stride**2, 0


def _blocks(tokens: int, width: int, depth: int) -> int:
    return _KEPT_PER_CHANNEL * tokens * width * depth


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
