"""Views of an image: the random crop of training, the fixed one of validation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from unveil_pretrain.data.crops import SIMMIM_SCALE, CropBox, random_crop_box
from unveil_pretrain.data.decode import decode, decode_crop
from unveil_pretrain.errors import ConfigError

__all__ = [
    "IMAGE_EXTENSIONS",
    "center_crop",
    "check_image_size",
    "load_image",
    "to_tensor",
    "train_view",
]

IMAGE_EXTENSIONS: Final = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm")


def load_image(data: bytes, where: str) -> Image.Image:
    """`unveil_pretrain.data.decode.decode` as an RGB image of Pillow's; errors likewise."""
    return Image.fromarray(decode(data, where))


def train_view(
    data: bytes,
    where: str,
    target: tuple[int, int],
    *,
    scale: tuple[float, float] = SIMMIM_SCALE,
    mirror: bool,
    seed: int,
    epoch: int,
    sample_id: int,
) -> UInt8[Tensor, "3 h w"]:
    """The crop of `random_crop_box`, resized to `target` (height, width), bicubic; mirrored only if `mirror` allows.

    Raises:
        DataError: the bytes are no image; the message begins with `where`.
    """

    def box_of(size: tuple[int, int]) -> CropBox:
        box = random_crop_box(size, target, scale=scale, seed=seed, epoch=epoch, sample_id=sample_id)
        return box if mirror else replace(box, flip=False)

    return decode_crop(data, where, target, box_of)


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
