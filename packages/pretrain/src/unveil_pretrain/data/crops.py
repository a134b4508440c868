"""Which rectangle of an image a sample shows: a pure function of (seed, epoch, sample id).

An image is cropped alike whatever the batch, the worker or the restart.
"""

import math
from dataclasses import dataclass
from typing import Final

from unveil_pretrain.data.streams import AUGMENT_STREAM, draw_block
from unveil_pretrain.errors import ConfigError

__all__ = ["SIMMIM_SCALE", "CropBox", "check_crop_scale", "random_crop_box"]

SIMMIM_SCALE: Final = (0.67, 1.0)
"""Smallest and largest area of SimMIM's training crops, as shares of the image; MAE takes (0.2, 1), FLIP (0.5, 1)."""

_RATIO: Final = (3 / 4, 4 / 3)
_ATTEMPTS: Final = 10


@dataclass(frozen=True, slots=True)
class CropBox:
    """A rectangle in pixels and whether the crop is mirrored."""

    left: int
    top: int
    width: int
    height: int
    flip: bool


def random_crop_box(
    size: tuple[int, int],
    target: tuple[int, int],
    *,
    scale: tuple[float, float] = SIMMIM_SCALE,
    seed: int,
    epoch: int,
    sample_id: int,
) -> CropBox:
    """RandomResizedCrop's rectangle: area within `scale`, shape 3/4 to 4/3 of the target's, mirrored half the time.

    Args:
        size: Height and width of the image.
        target: Height and width the crop will be resized to; only their ratio matters.
        scale: Smallest and largest area as shares of the image.
        seed: Seed of the run.
        epoch: Epoch in which the sample is seen.
        sample_id: Stable id of the sample.
    """
    height, width = size
    aspect = target[1] / target[0]
    flip = draw_block(seed, epoch, sample_id, AUGMENT_STREAM + 4 * _ATTEMPTS)[0] < 0.5
    for attempt in range(_ATTEMPTS):
        area_draw, ratio_draw, left_draw, top_draw = draw_block(seed, epoch, sample_id, AUGMENT_STREAM + 4 * attempt)
        area = height * width * (scale[0] + (scale[1] - scale[0]) * area_draw)
        ratio = aspect * math.exp(math.log(_RATIO[0]) + (math.log(_RATIO[1]) - math.log(_RATIO[0])) * ratio_draw)
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left, top = int(left_draw * (width - crop_width + 1)), int(top_draw * (height - crop_height + 1))
            return CropBox(left, top, crop_width, crop_height, flip)
    # A shape far from the target's: the largest centre crop.
    crop_width = max(1, min(width, round(height * aspect * _RATIO[1])))
    crop_height = max(1, min(height, round(width / (aspect * _RATIO[0]))))
    return CropBox((width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height, flip)


def check_crop_scale(scale: tuple[float, float]) -> None:
    """Refuse areas that are no shares in ascending order; ConfigError."""
    if len(scale) != 2 or not 0.0 < scale[0] <= scale[1] <= 1.0:
        raise ConfigError(
            f"crop_scale is {scale}; give the smallest and the largest area as shares of the image, "
            "for example 0.67 1 (SimMIM), 0.2 1 (MAE) or 0.5 1 (FLIP)"
        )
