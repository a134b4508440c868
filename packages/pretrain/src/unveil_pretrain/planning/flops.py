"""Operations of one training sample, from the settings alone: encoder, decoder, text tower, projections.

Two operations for each multiply-add, products of matrices only, and a backward pass of twice the forward pass: the
conventions of `unveil_backbones.flops`. What depends on the batch (similarities of a contrastive loss) and what runs
once for a whole batch (SwinV2's position-bias networks) is left out and named. What optimisations save (padding of
captions, rows of a last block that nobody reads) counts as if it were computed, so that a faster way of computing the
same is a higher utilisation and not a smaller model.

Shapes: n patches, k kept patches.
"""

from dataclasses import dataclass

import torch
from unveil_backbones import Encoder, TextConfig, VideoVitEncoder, create, create_text
from unveil_backbones.errors import ConfigError
from unveil_backbones.flops import block_multiply_adds, count_cost
from unveil_masking import Grid, RandomMask, TubeMask, UnitMask

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.objectives.beit import BEiTConfig
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.objectives.ijepa import IJEPAConfig
from unveil_pretrain.objectives.mae import MAEConfig
from unveil_pretrain.objectives.simmim import SimMIMConfig
from unveil_pretrain.objectives.sparse_simmim import SparseSimMIMConfig
from unveil_pretrain.objectives.splitmask import SplitMaskConfig
from unveil_pretrain.objectives.videomae import VideoMAEConfig
from unveil_pretrain.planning.objective_flops import (
    TRAINING,
    ObjectiveFlops,
    beit_flops,
    decoder_multiply_adds,
    ijepa_flops,
    sparse_flops,
    splitmask_flops,
)

__all__ = ["SampleFlops", "sample_flops"]

_COUNTED_BY_EACH = ("losses and targets", "norms, activations and additions")


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleFlops:
    """Operations of one sample in training, part by part."""

    parts: dict[str, float]
    """By the part's name; empty where nothing is known."""
    not_counted: tuple[str, ...]
    """What is left out."""
    num_parameters: int
    """Parameters of the encoder."""
    num_encoded: int
    """Patches that go through the encoder."""

    @property
    def total(self) -> float | None:
        """Their sum; None where the objective is not counted."""
        return sum(self.parts.values()) if self.parts else None


def sample_flops(config: MimConfig | FlipConfig) -> SampleFlops:
    """What one sample of a run costs in operations; nothing is allocated or computed.

    Raises:
        BackboneError: the encoder is unknown or the image size does not suit it.
        MaskingError: the mask does not fit the grid.
    """
    if isinstance(config.objective, VideoMAEConfig):
        return _clip_flops(config, config.objective)
    with torch.device("meta"):
        encoder = create(config.encoder, image_size=config.image_size)
    special = _special_flops(config, encoder)
    if special is not None:
        return SampleFlops(
            parts=special.parts,
            not_counted=(*_COUNTED_BY_EACH, *special.not_counted),
            num_parameters=encoder.num_parameters,
            num_encoded=special.num_encoded,
        )
    rows, cols = encoder.grid(*config.image_size)
    whole, objective = rows * cols, config.objective
    match objective:
        case SimMIMConfig():
            kept = whole
            parts = {"pixel head": TRAINING * _simmim_head(encoder, config.image_size)}
        case MAEConfig():
            kept = _num_kept(RandomMask(objective.mask_ratio), Grid(rows, cols))
            parts = {"decoder": TRAINING * _mae_decoder(encoder, objective, whole, kept)}
        case FLIPConfig():
            with torch.device("meta"):
                text = create_text(objective.text, vocab_size=objective.vocab_size, length=objective.text_length).config
            strategy = RandomMask(objective.mask_ratio)
            if encoder.mask_unit != 1:
                strategy = UnitMask(encoder.mask_unit, objective.mask_ratio, strategy.rounding)
            kept = _num_kept(strategy, Grid(rows, cols))
            parts = {
                "text tower": TRAINING * _text_tower(text),
                "projections": TRAINING * (encoder.width + text.width) * objective.embed_dim,
            }
        case _:
            return SampleFlops(
                parts={},
                not_counted=(f"everything: the operations of {objective.name} are not known to the planner",),
                num_parameters=encoder.num_parameters,
                num_encoded=whole,
            )
    num_kept = kept if encoder.accepts_subset and kept < whole else None
    cost = count_cost(encoder.spec, image_size=config.image_size, num_kept=num_kept)
    shared = ("position-bias networks (once per batch)",) if cost.shared_multiply_adds else ()
    return SampleFlops(
        parts={"encoder": float(cost.training_flops), **{name: float(value) for name, value in parts.items()}},
        not_counted=(*_COUNTED_BY_EACH, *shared),
        num_parameters=encoder.num_parameters,
        num_encoded=kept,
    )


def _special_flops(config: MimConfig | FlipConfig, encoder: Encoder) -> ObjectiveFlops | None:
    """Objectives with a way of their own to use the encoder; None for all others."""
    match config.objective:
        case SplitMaskConfig():
            return splitmask_flops(config.objective, encoder, config.image_size)
        case BEiTConfig():
            return beit_flops(config.objective, encoder, config.image_size)
        case IJEPAConfig():
            return ijepa_flops(config.objective, encoder, config.image_size)
        case SparseSimMIMConfig():
            return sparse_flops(config.objective, encoder, config.image_size)
        case _:
            return None


def _clip_flops(config: MimConfig | FlipConfig, objective: VideoMAEConfig) -> SampleFlops:
    """What one clip costs: as MAE's images, with cubes for patches."""
    num_frames = objective.clips.num_frames
    with torch.device("meta"):
        encoder = create(config.encoder, image_size=config.image_size, num_frames=num_frames)
    if not isinstance(encoder, VideoVitEncoder):
        raise ConfigError(f"{config.encoder} encodes images and {objective.name} clips; choose a vit_video encoder")
    slots, rows, cols = encoder.clip_grid(num_frames, *config.image_size)
    whole = slots * rows * cols
    kept = _num_kept(TubeMask(objective.mask_ratio), Grid(rows, cols, frames=slots))
    width, outputs = objective.decoder_width, 3 * encoder.tubelet * encoder.patch_size**2
    blocks = objective.decoder_depth * block_multiply_adds(whole, width)
    decoder = kept * encoder.width * width + blocks + (whole - kept) * width * outputs
    cost = count_cost(encoder.spec, image_size=config.image_size, num_kept=kept)
    return SampleFlops(
        parts={"encoder": float(cost.training_flops), "decoder": float(TRAINING * decoder)},
        not_counted=_COUNTED_BY_EACH,
        num_parameters=encoder.num_parameters,
        num_encoded=kept,
    )


def _simmim_head(encoder: Encoder, image_size: tuple[int, int]) -> int:
    """One linear layer from each final token to the pixels of its cell."""
    pixels = image_size[0] * image_size[1]
    return pixels * 3 * encoder.width


def _mae_decoder(encoder: Encoder, config: MAEConfig, whole: int, kept: int) -> int:
    """A projection of the kept tokens, the blocks over all of them, a layer to the hidden pixels."""
    return decoder_multiply_adds(
        encoder.width,
        config.decoder_width,
        config.decoder_depth,
        num_prefix=encoder.num_prefix_tokens,
        num_kept=kept,
        num_hidden=whole - kept,
        num_outputs=encoder.patch_size**2 * 3,
    )


def _num_kept(strategy: RandomMask | UnitMask | TubeMask, grid: Grid) -> int:
    return round(grid.num * (1.0 - strategy.realised_ratio(grid)))


def _text_tower(text: TextConfig) -> int:
    return text.depth * block_multiply_adds(text.length, text.width, mlp_ratio=text.mlp_ratio)
