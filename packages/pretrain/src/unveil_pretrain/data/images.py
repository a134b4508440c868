"""Decoding and cropping: from the bytes of a sample to a uint8 RGB tensor.

Crops are pure functions of (seed, epoch, sample id): an image is cropped alike whatever the batch, worker or restart.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from unveil_pretrain.data.streams import AUGMENT_STREAM, draws
from unveil_pretrain.errors import ConfigError, DataError

__all__ = [
    "IMAGE_EXTENSIONS",
    "CropBox",
    "center_crop",
    "check_image_size",
    "load_image",
    "random_crop_box",
    "to_tensor",
    "train_view",
]

IMAGE_EXTENSIONS: Final = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")

_SCALE: Final = (0.67, 1.0)  # SimMIM's RandomResizedCrop
_RATIO: Final = (3 / 4, 4 / 3)
_ATTEMPTS: Final = 10
_SIXTEEN_BIT_MODES: Final = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True, slots=True)
class CropBox:
    """A rectangle in pixels and whether the crop is mirrored."""

    left: int
    top: int
    width: int
    height: int
    flip: bool


def load_image(data: bytes, where: str) -> Image.Image:
    """Decode to 8-bit RGB: gray is repeated, palettes looked up, alpha dropped, animations give their first frame.

    Args:
        data: An encoded image in any format Pillow reads.
        where: Shard and key, for messages.

    Raises:
        DataError: the bytes cannot be decoded, or the pixels are neither 8-bit nor 16-bit integers.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return _to_rgb(image, where)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise DataError(
            f"{where}: the image cannot be decoded ({type(error).__name__}: {error}); replace it or remove the sample"
        ) from error


def _to_rgb(image: Image.Image, where: str) -> Image.Image:
    if image.mode in _SIXTEEN_BIT_MODES:  # Pillow would clip to 255 instead of scaling
        levels = np.asarray(image).astype(np.uint16) >> 8
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(
            f"{where}: pixels are stored in mode {image.mode!r} with no fixed range; convert the image to 8 bits"
        )
    if image.mode in (
        "P",
        "PA",
        "LA",
    ):  # a palette with a transparent entry converts without a warning only by way of RGBA
        image = image.convert("RGBA")
    return image.convert("RGB")


def random_crop_box(
    size: tuple[int, int], target: tuple[int, int], *, seed: int, epoch: int, sample_id: int
) -> CropBox:
    """RandomResizedCrop's rectangle: area 0.67 to 1, shape 3/4 to 4/3 of the target's, mirrored half the time.

    Args:
        size: Height and width of the image.
        target: Height and width the crop will be resized to; only their ratio matters.
        seed: Seed of the run.
        epoch: Epoch in which the sample is seen.
        sample_id: Stable id of the sample.
    """
    height, width = size
    numbers = draws(seed, epoch, sample_id, AUGMENT_STREAM, 4 * _ATTEMPTS + 1)
    flip = bool(numbers[-1] < 0.5)
    aspect = target[1] / target[0]
    for area_draw, ratio_draw, left_draw, top_draw in numbers[:-1].reshape(_ATTEMPTS, 4):
        area = height * width * (_SCALE[0] + (_SCALE[1] - _SCALE[0]) * area_draw)
        ratio = aspect * math.exp(math.log(_RATIO[0]) + (math.log(_RATIO[1]) - math.log(_RATIO[0])) * ratio_draw)
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left, top = int(left_draw * (width - crop_width + 1)), int(top_draw * (height - crop_height + 1))
            return CropBox(left, top, crop_width, crop_height, flip)
    crop_width = max(
        1, min(width, round(height * aspect * _RATIO[1]))
    )  # a shape far from the target's: the largest centre crop
    crop_height = max(1, min(height, round(width / (aspect * _RATIO[0]))))
    return CropBox((width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height, flip)


def train_view(
    image: Image.Image, target: tuple[int, int], *, mirror: bool, seed: int, epoch: int, sample_id: int
) -> Image.Image:
    """The crop of `random_crop_box`, resized to `target` (height, width), bicubic; mirrored only if `mirror` allows."""
    box = random_crop_box((image.height, image.width), target, seed=seed, epoch=epoch, sample_id=sample_id)
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    view = image.resize((target[1], target[0]), Image.Resampling.BICUBIC, box=corners)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if box.flip and mirror else view


def center_crop(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    """Resize until `target` (height, width) is just covered, bicubic, and cut it from the centre."""
    scale = max(target[0] / image.height, target[1] / image.width)
    width, height = max(target[1], round(image.width * scale)), max(target[0], round(image.height * scale))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - target[1]) // 2, (height - target[0]) // 2
    return resized.crop((left, top, left + target[1], top + target[0]))


def to_tensor(image: Image.Image) -> UInt8[Tensor, "3 h w"]:
    """Pixels of an RGB image, channels first."""
    return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1).contiguous()


def check_image_size(image_size: Sequence[int]) -> tuple[int, int]:
    """Height and width, if both are positive; ConfigError otherwise."""
    if len(image_size) != 2 or min(image_size) < 1:
        raise ConfigError(f"image_size is {tuple(image_size)}; give height and width in pixels, as in (64, 96)")
    return int(image_size[0]), int(image_size[1])
