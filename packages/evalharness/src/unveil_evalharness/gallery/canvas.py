"""Images of any kind as small RGB pictures, text on them, and several of them beside each other."""

import textwrap
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "GAP",
    "INK",
    "PAPER",
    "SIDE",
    "ImageLike",
    "captioned",
    "fitted",
    "font",
    "side_by_side",
    "to_image",
    "wrapped",
]

ImageLike = Image.Image | UInt8[np.ndarray, "h w 3"]
"""A Pillow image of any mode, or RGB pixels."""

SIDE = 360
"""Longest side, in pixels, of one image in a picture."""
GAP = 8
PAPER = (255, 255, 255)
INK = (31, 35, 40)
_TEXT_SIZE = 13


def to_image(image: ImageLike) -> Image.Image:
    """`image` in RGB; transparency is dropped."""
    return image.convert("RGB") if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))


def fitted(image: ImageLike, side: int = SIDE) -> Image.Image:
    """`image` in RGB, scaled down so that its longer side is at most `side` pixels; never scaled up beyond twice."""
    picture = to_image(image)
    scale = min(side / max(picture.size), 2.0)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC)


@lru_cache(maxsize=4)
def font(size: int = _TEXT_SIZE) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib brings it: Latin, Greek, Cyrillic and ticks."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def captioned(image: ImageLike, text: str, *, max_lines: int = 3) -> Image.Image:
    """`image` with `text` above it, wrapped to its width and cut with an ellipsis after `max_lines`."""
    picture = to_image(image)
    if not text.strip():
        return picture
    lines = wrapped(text, picture.width, max_lines)
    height = len(lines) * (_TEXT_SIZE + 4) + 4
    result = Image.new("RGB", (picture.width, picture.height + height), PAPER)
    result.paste(picture, (0, height))
    ImageDraw.Draw(result).multiline_text((1, 0), "\n".join(lines), fill=INK, font=font(), spacing=3)
    return result


def wrapped(text: str, width: int, max_lines: int) -> list[str]:
    """`text` on lines of at most about `width` pixels."""
    per_character = font().getlength("abcdefghij klmnopqrs") / 20
    columns = max(4, int(width / per_character))
    return textwrap.wrap(" ".join(text.split()), columns, max_lines=max_lines, placeholder=" …") or [""]


def side_by_side(images: Sequence[ImageLike], titles: Sequence[str] = ()) -> Image.Image:
    """Images in a row on white, aligned at the top, each with its title (``"truth"``, ``"prediction"``) above it.

    Raises:
        ValueError: no image, or not one title per image.
    """
    if not images:
        raise ValueError("side_by_side needs at least one image, got none")
    names = titles or [""] * len(images)
    parts = [captioned(image, title, max_lines=2) for image, title in zip(images, names, strict=True)]
    width = sum(part.width for part in parts) + GAP * (len(parts) - 1)
    result = Image.new("RGB", (width, max(part.height for part in parts)), PAPER)
    left = 0
    for part in parts:
        result.paste(part, (left, 0))
        left += part.width + GAP
    return result
