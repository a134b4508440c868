"""Pictures in and out, and painting masks over them. Needs Pillow."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unveil_masking.grid import Grid
from unveil_masking.resize import ResizeReduction
from unveil_masking.show.errors import PictureError

__all__ = ["HIDDEN_COLOUR", "contrast", "painted", "read_picture", "resized", "token_side", "write_picture"]

HIDDEN_COLOUR = (146, 151, 162)
_COLOURS = 128
# Pillow hands other formats, which it knows by their first bytes, to other programs (PostScript to Ghostscript).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


def token_side(grid: Grid, wanted: int) -> int:
    """Side of a token in pixels, so that the picture's longer side is about `wanted`."""
    return max(1, wanted // max(grid.rows, grid.cols))


def read_picture(path: Path, grid: Grid, side: int) -> np.ndarray:
    """The picture at `path`, cut at the centre to the grid's shape: uint8 [rows·side, cols·side, 3].

    Raises:
        PictureError: there is no such file, or it is no picture.
    """
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except UnidentifiedImageError:
        raise PictureError(f"{path} is no picture that Pillow can read. Give a JPEG or PNG file.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(f"{path} cannot be read: {error}. Give the path of a JPEG or PNG file.") from None
    scale = min(upright.width / grid.cols, upright.height / grid.rows)
    width, height = grid.cols * scale, grid.rows * scale
    left, top = (upright.width - width) / 2, (upright.height - height) / 2
    box = (left, top, left + width, top + height)
    shape = (grid.cols * side, grid.rows * side)
    return np.asarray(upright.resize(shape, Image.Resampling.BICUBIC, box=box))


def painted(picture: np.ndarray, mask: np.ndarray, grid: Grid) -> Image.Image:
    """The picture with the hidden tokens of `mask`, bool [n], under flat colour."""
    side = picture.shape[0] // grid.rows
    hidden = mask.reshape(grid.rows, grid.cols).repeat(side, 0).repeat(side, 1)
    return Image.fromarray(np.where(hidden[..., None], np.array(HIDDEN_COLOUR, np.uint8), picture))


def resized(picture: np.ndarray, grid: Grid, reduction: ResizeReduction) -> Image.Image:
    """The smaller picture that has as few tokens, in the middle of the place of the larger one."""
    side = picture.shape[0] // grid.rows
    planes = picture.astype(np.float32).transpose(2, 0, 1)[None]
    small = reduction.resize(planes, side)[0].transpose(1, 2, 0)
    canvas = Image.new("RGB", (picture.shape[1], picture.shape[0]), HIDDEN_COLOUR)
    left, top = (picture.shape[1] - small.shape[1]) // 2, (picture.shape[0] - small.shape[0]) // 2
    canvas.paste(Image.fromarray(small.round().clip(0, 255).astype(np.uint8)), (left, top))
    return canvas


def contrast(picture: np.ndarray, grid: Grid) -> np.ndarray:
    """Float64 [n]: standard deviation of the brightness in each token, a simple measure of content."""
    side = picture.shape[0] // grid.rows
    grey: Any = picture.astype(np.float64).mean(2)
    return grey.reshape(grid.rows, side, grid.cols, side).std((1, 3)).reshape(-1)


def write_picture(picture: Image.Image, path: Path) -> None:
    """Write with the format of the file name's ending; PNG with a palette, which keeps it small.

    An earlier picture stays until the new one is there whole.

    Raises:
        PictureError: the ending is not known, or the file cannot be written.
    """
    known = {ending: format for ending, format in Image.registered_extensions().items() if format in Image.SAVE}
    if path.suffix.lower() not in known:
        names = ", ".join(sorted(known))
        raise PictureError(f"{path}: pictures are not written as {path.suffix!r}. Allowed: {names}.")
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        encoded = _encoded(picture, known[path.suffix.lower()])
        try:
            beside.write_bytes(encoded)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise PictureError(
            f"{path} cannot be written: {error}. Give a path in a folder that exists and has free space."
        ) from None


def _encoded(picture: Image.Image, format: str) -> bytes:
    stream = io.BytesIO()
    if format == "PNG":
        picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(stream, format, optimize=True)
    else:
        picture.save(stream, format)
    return stream.getvalue()
