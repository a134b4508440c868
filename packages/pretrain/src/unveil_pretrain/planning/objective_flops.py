"""Operations of objectives that use their encoder otherwise than once on all, or once on the kept patches.

SplitMask encodes both halves; BEiT and SplitMask look each patch up in a vocabulary, which is a product of matrices
without a backward pass; I-JEPA's teacher likewise has a forward pass alone; sparse SimMIM computes visible units only.

Samples of I-JEPA keep unequal numbers of patches: they count with the mean numbers of 1024 fixed masks, and the filling
up to a batch's longest sample is left out. Which tokens of sparse SimMIM meet depends on the mask: the expected number
over all masks counts, and the filling of segments to a few sizes (`unveil_backbones.swin_packing`) is left out.

Shapes: n patches, k kept ones, m of a target block, u units.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from unveil_backbones import Encoder, SwinConfig, SwinEncoder
from unveil_backbones.flops import block_multiply_adds, count_cost
from unveil_backbones.swin_packing import StageCells, stage_cells
from unveil_backbones.swin_windows import make_plan
from unveil_masking import BlockMask, Grid, MultiBlockMask, UnitMask

from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.beit import BEiTConfig
from unveil_pretrain.objectives.ijepa import IJEPAConfig
from unveil_pretrain.objectives.sparse_simmim import SparseSimMIMConfig
from unveil_pretrain.objectives.splitmask import SplitMaskConfig

__all__ = [
    "FORWARD",
    "TRAINING",
    "ObjectiveFlops",
    "beit_flops",
    "decoder_multiply_adds",
    "ijepa_flops",
    "sparse_flops",
    "splitmask_flops",
]

FORWARD = 2
"""Operations of a multiply-add."""
TRAINING = 3 * FORWARD
"""With the backward pass, which costs twice the forward pass."""
_MASKS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveFlops:
    """What one sample costs, part by part, "encoder" first."""

    parts: dict[str, float]
    num_encoded: int
    """Patches that go through the trained encoder; a mean where samples differ."""
    not_counted: tuple[str, ...] = ()
    """What is left out besides what every objective leaves out."""


def decoder_multiply_adds(
    encoder_width: int, width: int, depth: int, *, num_prefix: int, num_kept: int, num_hidden: int, num_outputs: int
) -> int:
    """Multiply-adds of an `MAEDecoder`: the kept tokens projected, blocks over all, outputs for the hidden ones."""
    blocks = depth * block_multiply_adds(num_prefix + num_kept + num_hidden, width)
    return (num_prefix + num_kept) * encoder_width * width + blocks + num_hidden * width * num_outputs


def splitmask_flops(objective: SplitMaskConfig, encoder: Encoder, image_size: tuple[int, int]) -> ObjectiveFlops:
    """Both halves encoded and inpainted; the contrast depends on the batch.

    Raises:
        BackboneError: the encoder needs all of its tokens.
    """
    num = _num_patches(encoder, image_size)
    halves = (num // 2, num - num // 2)
    encoded = sum(count_cost(encoder.spec, image_size=image_size, num_kept=half).training_flops for half in halves)
    decoder = sum(
        decoder_multiply_adds(
            encoder.width,
            objective.decoder_width,
            objective.decoder_depth,
            num_prefix=encoder.num_prefix_tokens,
            num_kept=half,
            num_hidden=num - half,
            num_outputs=objective.vocab_size,
        )
        for half in halves
    )
    tokenizer = FORWARD * num * 3 * encoder.patch_size**2 * objective.vocab_size
    return ObjectiveFlops(
        parts={"encoder": float(encoded), "decoder": float(TRAINING * decoder), "tokenizer": float(tokenizer)},
        num_encoded=num,
        not_counted=("similarities between samples",),
    )


def beit_flops(objective: BEiTConfig, encoder: Encoder, image_size: tuple[int, int]) -> ObjectiveFlops:
    """The whole image encoded; head and tokenizer for the hidden patches."""
    rows, cols = encoder.grid(*image_size)
    strategy = BlockMask(objective.mask_ratio, min_block=objective.min_block, exact=True)
    hidden = round(rows * cols * strategy.realised_ratio(Grid(rows, cols)))
    encoded = count_cost(encoder.spec, image_size=image_size).training_flops
    tokenizer = FORWARD * hidden * 3 * encoder.patch_size**2 * objective.vocab_size
    head = TRAINING * hidden * encoder.width * objective.vocab_size
    return ObjectiveFlops(
        parts={"encoder": float(encoded), "head": float(head), "tokenizer": float(tokenizer)}, num_encoded=rows * cols
    )


def ijepa_flops(objective: IJEPAConfig, encoder: Encoder, image_size: tuple[int, int]) -> ObjectiveFlops:
    """Student on the context, predictor once for each target block, teacher forward on the whole image.

    Raises:
        BackboneError: the encoder needs all of its tokens.
    """
    rows, cols = encoder.grid(*image_size)
    strategy = MultiBlockMask(
        num_targets=objective.num_targets,
        target_area=objective.target_area,
        target_aspect=objective.target_aspect,
        context_area=objective.context_area,
    )
    grid, ids = Grid(rows, cols), np.arange(_MASKS, dtype=np.int64)
    kept = round(float((~strategy.sample(grid, ids, seed=0).mask).sum(1).mean()))
    asked = round(float(strategy.targets(grid, ids, seed=0).sum(2).mean()))
    width, targets = objective.predictor_width, objective.num_targets
    blocks = targets * objective.predictor_depth * block_multiply_adds(kept + asked, width)
    predictor = kept * encoder.width * width + blocks + targets * asked * width * encoder.width
    return ObjectiveFlops(
        parts={
            "encoder": float(count_cost(encoder.spec, image_size=image_size, num_kept=kept).training_flops),
            "predictor": float(TRAINING * predictor),
            "teacher": float(count_cost(encoder.spec, image_size=image_size).flops),
        },
        num_encoded=kept,
        not_counted=("filling up to the longest sample of a batch",),
    )


def sparse_flops(objective: SparseSimMIMConfig, encoder: Encoder, image_size: tuple[int, int]) -> ObjectiveFlops:
    """The visible units encoded; the decoder over all final cells.

    Raises:
        ConfigError: the encoder is no SwinV2.
    """
    if not isinstance(encoder, SwinEncoder):
        raise ConfigError(f"{objective.name} needs a swinv2 encoder, and {encoder.spec.name} is none; choose one")
    cells = Grid(image_size[0] // encoder.stride, image_size[1] // encoder.stride)
    hidden = UnitMask(1, objective.mask_ratio).num_hidden(cells)
    visible, side = cells.num - hidden, encoder.stride // encoder.patch_size
    decoder = decoder_multiply_adds(
        encoder.width,
        objective.decoder_width,
        objective.decoder_depth,
        num_prefix=0,
        num_kept=visible,
        num_hidden=hidden,
        num_outputs=3 * encoder.stride**2,
    )
    encoded = _sparse_encoder(encoder.config, encoder.grid(*image_size), side, visible)
    return ObjectiveFlops(
        parts={"encoder": TRAINING * encoded, "decoder": float(TRAINING * decoder)},
        num_encoded=visible * side**2,
        not_counted=("filling of segments", "position-bias networks (once per batch)"),
    )


def _sparse_encoder(config: SwinConfig, grid: tuple[int, int], side: int, num_visible: int) -> float:
    """Expected multiply-adds of the encoder with so many visible units, `side` tokens wide, of an image."""
    plans = make_plan(
        grid,
        config.window_sizes,
        config.pretrained_window_sizes,
        config.depths,
        window_order=False,
        merge_gather=False,
        device=torch.device("cpu"),
    )
    tokens = num_visible * side**2
    total = float(tokens * 3 * config.patch_size**2 * config.width)
    for stage, plan in enumerate(plans):
        width, window = config.width * 2**stage, config.window_sizes[stage]
        if stage:
            tokens //= 4
            total += tokens * 2 * width**2  # 4 x width / 2 in, width out
        kinds = range(2 if max(plan.grid) > window else 1)
        made = [
            stage_cells(plan, odd, window=window, unit=side >> stage, device=torch.device("cpu"))
            for odd in kinds[: config.depths[stage]]
        ]
        pairs = [_expected_pairs(cells, num_visible) for cells in made]
        each = tokens * (4 * width**2 + 2 * width * round(width * config.mlp_ratio))
        total += sum(each + 2 * width * pairs[block % len(pairs)] for block in range(config.depths[stage]))
    return total


def _expected_pairs(cells: StageCells, num_visible: int) -> float:
    """Pairs of tokens that meet in an image, over all masks with so many visible units."""
    num_units = len(cells.of_unit)
    of_segment = torch.zeros(cells.num_segments, num_units, dtype=torch.float64)
    segments = cells.segment[cells.of_unit]  # [u, cells of a unit]
    units = torch.arange(num_units)[:, None].expand_as(segments)
    of_segment.index_put_((segments, units), torch.ones((), dtype=torch.float64), accumulate=True)
    same, every = _sum(of_segment.square()), _sum(of_segment.sum(1).square())
    one = num_visible / num_units
    both = one * (num_visible - 1) / max(1, num_units - 1)
    return cells.tokens**2 * (one * same + both * (every - same))


def _sum(values: Tensor) -> float:
    return float(values.sum())


def _num_patches(encoder: Encoder, image_size: tuple[int, int]) -> int:
    rows, cols = encoder.grid(*image_size)
    return rows * cols
