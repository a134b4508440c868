"""What an encoder costs: multiply-adds and parameters, by formula and by counting.

Papers call a multiply-add "one FLOP": the "9G to 190G FLOPs" of the data-scaling study (arXiv 2206.04664) and FLIP's
table 1 (arXiv 2212.00794) are multiply-adds. Hardware counts two operations for each, so utilisation and ``Cost.flops``
do. Only products of matrices count (projections, attention, convolutions); norms, activations and additions are less
than 1 % of it. A backward pass costs twice the forward pass.

Shapes: ``n`` tokens in the blocks, ``d`` their width.
"""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from unveil_backbones.base import Encoder, check_image_size
from unveil_backbones.encoder import build
from unveil_backbones.errors import TokenCountError
from unveil_backbones.hiera_config import MASK_UNIT, PATCH_STRIDE, UNIT_PIXELS, HieraConfig
from unveil_backbones.specs import EncoderSpec
from unveil_backbones.swin import SwinConfig
from unveil_backbones.vit import VitConfig
from unveil_backbones.vit_video import VideoVitConfig, VideoVitEncoder

__all__ = ["Cost", "block_multiply_adds", "count_cost", "encoder_cost"]

_BIAS_NETWORK_WIDTH = 512  # hidden units of SwinV2's position-bias network (arXiv 2111.09883, section 3.3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one forward pass costs."""

    multiply_adds: int
    """For each image."""
    shared_multiply_adds: int = 0
    """Once for a whole batch, whatever its size: SwinV2's position-bias networks."""

    @property
    def flops(self) -> int:
        """Floating point operations for each image: two for each multiply-add."""
        return 2 * self.multiply_adds

    @property
    def training_flops(self) -> int:
        """Those of a training step: the forward pass and a backward pass of twice its cost."""
        return 3 * self.flops


def encoder_cost(
    config: VitConfig | SwinConfig | HieraConfig | VideoVitConfig,
    *,
    image_size: tuple[int, int] | None = None,
    num_kept: int | None = None,
) -> Cost:
    """Return the cost of ``encode(embed(images))`` from a formula, without building anything.

    Args:
        config: Shape of the encoder.
        image_size: Height and width; those of the configuration if ``None``.
        num_kept: Patches that are encoded, and embedded by a ViT (Hiera's overlap: it embeds all); all of them if
            ``None``. Not for a Swin; whole mask units for a Hiera; cubes for a clip of the configuration's frames.

    Raises:
        ImageSizeError: A side does not fit the encoder.
        TokenCountError: There are fewer patches than ``num_kept``, or the encoder needs all.
    """
    height, width = image_size or config.image_size
    if isinstance(config, SwinConfig):
        check_image_size(height, width, 8 * config.patch_size, "encoder_cost")
        if num_kept is not None:
            raise TokenCountError(f"num_kept {num_kept} for a Swin encoder, which needs all tokens; leave it out")
        return _swin_cost(config, height // config.patch_size, width // config.patch_size)
    stride, side = (UNIT_PIXELS, PATCH_STRIDE) if isinstance(config, HieraConfig) else (config.patch_size,) * 2
    check_image_size(height, width, stride, "encoder_cost")
    slots, depth = (config.num_frames, config.tubelet) if isinstance(config, VideoVitConfig) else (1, 1)
    whole = height // side * (width // side) * (slots // depth)
    kept = whole if num_kept is None else num_kept
    if not 0 <= kept <= whole or kept * side**2 % stride**2:
        unit = (stride // side) ** 2
        raise TokenCountError(f"num_kept {kept} of {whole} patches; give a multiple of {unit}, at most {whole}")
    if isinstance(config, HieraConfig):
        return _hiera_cost(config, whole, kept)
    prefix = 0 if isinstance(config, VideoVitConfig) else int(config.class_token) + config.num_registers
    block = block_multiply_adds(kept + prefix, config.width, mlp_ratio=config.mlp_ratio)
    return Cost(multiply_adds=kept * 3 * depth * config.patch_size**2 * config.width + config.depth * block)


def block_multiply_adds(
    num_tokens: int, width: int, *, mlp_ratio: float = 4.0, num_attended: int | None = None, num_rows: int | None = None
) -> int:
    """Return the multiply-adds of one transformer block: ``12 n d^2 + 2 n^2 d`` with an MLP of four times the width.

    Args:
        num_tokens: ``n``.
        width: ``d``.
        mlp_ratio: Hidden width of the MLP over ``d``.
        num_attended: Tokens that each token attends to (a window); all ``n`` if ``None``.
        num_rows: Tokens that are wanted; keys and values are made of all ``n`` nevertheless. All if ``None``.
    """
    rows = num_tokens if num_rows is None else num_rows
    attended = num_tokens if num_attended is None else num_attended
    keys_and_values = 2 * num_tokens * width**2
    query_and_projection = 2 * rows * width**2
    mlp = 2 * rows * width * round(width * mlp_ratio)
    return keys_and_values + query_and_projection + mlp + 2 * rows * attended * width


def count_cost(spec: EncoderSpec, *, image_size: tuple[int, int] | None = None, num_kept: int | None = None) -> Cost:
    """Return the cost of ``encode(embed(images))`` as PyTorch's counter sees it, on tensors without data.

    It runs the encoder that ``spec`` describes for one image and for two: the difference is the cost of an image, the
    rest is shared.

    Args:
        spec: The encoder, for example ``encoder.spec``.
        image_size: Height and width; those of the configuration if ``None``.
        num_kept: Patches that are embedded and encoded; all of them if ``None``.

    Raises:
        UnknownModelError: The spec's name is unknown.
        ImageSizeError: A side does not fit the encoder.
        TokenCountError: ``num_kept`` was given and the encoder needs all tokens, or it is too large.
    """
    with torch.device("meta"):
        encoder = build(spec).eval()
    # Other optimisations change who computes the products, not how many there are.
    encoder.set_optimisations({"kept_patches"} & set(encoder.OPTIMISATIONS))
    size = image_size or encoder.config.image_size
    one, two = (_count(encoder, batch, size, num_kept) for batch in (1, 2))
    return Cost(multiply_adds=(two - one) // 2, shared_multiply_adds=(2 * one - two) // 2)


def _count(encoder: Encoder, batch: int, size: tuple[int, int], num_kept: int | None) -> int:
    """Return the floating point operations of a forward pass."""
    keep = None if num_kept is None else torch.zeros(batch, num_kept, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if isinstance(encoder, VideoVitEncoder):
            clip = (encoder.config.num_frames, *size)
            clips = torch.empty(batch, 3, *clip, device="meta")
            encoder.encode(encoder.embed(clips, keep), encoder.clip_grid(*clip), keep)
        else:
            images = torch.empty(batch, 3, *size, device="meta")
            encoder.encode(encoder.embed(images, keep), encoder.grid(*size), keep)
    return counter.get_total_flops()


def _swin_cost(config: SwinConfig, rows: int, cols: int) -> Cost:
    """Four stages of windowed blocks; before each but the first, four tokens merge into one of twice the width."""
    total = rows * cols * 3 * config.patch_size**2 * config.width
    shared = 0
    for stage, (depth, heads, window) in enumerate(
        zip(config.depths, config.num_heads, config.window_sizes, strict=True)
    ):
        width = config.width * 2**stage
        if stage:
            rows, cols = rows // 2, cols // 2
            total += rows * cols * 2 * width * width  # 4 x width / 2 in, width out
        sides = (min(window, rows), min(window, cols))
        # Windows at the border are filled up with zeros, which pass through the attention but not through the MLP.
        padded = _multiple(rows, sides[0]) * _multiple(cols, sides[1])
        attention = 4 * padded * width**2 + 2 * padded * sides[0] * sides[1] * width
        total += depth * (attention + 2 * rows * cols * width * round(width * config.mlp_ratio))
        table = (2 * sides[0] - 1) * (2 * sides[1] - 1)
        shared += depth * table * _BIAS_NETWORK_WIDTH * (2 + heads)
    return Cost(multiply_adds=total, shared_multiply_adds=shared)


def _hiera_cost(config: HieraConfig, whole: int, kept: int) -> Cost:
    """Patches of 7 x 7 pixels for all tokens, then four stages for those kept; a stage's first block pools by four."""
    total = whole * 3 * 7**2 * config.width
    unit, tokens = MASK_UNIT**2, kept
    for stage, depth in enumerate(config.depths):
        for block in range(depth):
            pooled = stage > 0 and block == 0
            width = config.width * 2**stage
            before = width // 2 if pooled else width
            # Stages 0 and 1 attend within units, and so does the block that pools after stage 1.
            attended = unit if stage < 2 or (stage == 2 and pooled) else tokens
            total += tokens * before * 3 * width
            if pooled:
                total += tokens * before * width * int(config.expand_projection)
                tokens, unit = tokens // 4, unit // 4
            total += tokens * (2 * attended * width + width**2 + 2 * width * int(width * config.mlp_ratio))
    return Cost(multiply_adds=total)


def _multiple(side: int, window: int) -> int:
    return -(-side // window) * window
