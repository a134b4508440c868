"""From encoded bytes to pixels: JPEG by libjpeg-turbo, everything else by Pillow, and one way of resizing for all.

JPEG is what large data sets are made of, so it has a path of its own (simplejpeg, which bundles libjpeg-turbo as Pillow
does, and gives the same pixels at a third of the cost). What simplejpeg does not take (CMYK, bytes it warns about) goes
to Pillow, whose word is final: a file is broken when Pillow says so.
"""

import io
from collections.abc import Callable
from typing import Final

import numpy as np
import simplejpeg
import torch
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate
from unveil_backbones.errors import TooManyPixelsError
from unveil_backbones.limits import check_pixels, max_image_pixels, refusal

from unveil_pretrain.data.crops import CropBox
from unveil_pretrain.errors import DataError

__all__ = ["decode", "decode_crop"]

# Pillow knows a format by its first bytes, whatever the file is called, and hands some to other programs (PostScript to
# Ghostscript). These are what images for training come in.
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_JPEG_MAGIC: Final = b"\xff\xd8\xff"
_SIXTEEN_BIT_MODES: Final = ("I;16", "I;16L", "I;16B", "I;16N")
# A crop is decoded at 1/2, 1/4 or 1/8 of its size if it then still has so many times the pixels it is resized to.
_SPARE: Final = 2
_FACTORS: Final = (8, 4, 2)


def decode(data: bytes, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decode to 8-bit RGB: gray is repeated, palettes looked up, alpha dropped, animations give their first frame.

    Args:
        data: An encoded image: JPEG, PNG, WebP, BMP, GIF, TIFF or PPM.
        where: Shard and key, for messages.

    Raises:
        DataError: the bytes cannot be decoded, there are more pixels than `unveil_backbones.limits.max_image_pixels`,
            or they are neither 8-bit nor 16-bit integers.
    """
    pixels = None if _jpeg_size(data, where) is None else _decode_jpeg(data)
    return _decode_by_pillow(data, where) if pixels is None else pixels


def decode_crop(
    data: bytes, where: str, target: tuple[int, int], box_of: Callable[[tuple[int, int]], CropBox]
) -> UInt8[Tensor, "3 h w"]:
    """Decode, crop, resize (bicubic, antialiased), and mirror if the box says so.

    Args:
        data: An encoded image, as for `decode`.
        where: Shard and key, for messages.
        target: Height and width of the result.
        box_of: From height and width of the image to the crop.

    Raises:
        DataError: as `decode`.
    """
    size = _jpeg_size(data, where)
    if size is None:
        pixels = _decode_by_pillow(data, where)
        box = box_of((pixels.shape[0], pixels.shape[1]))
    else:
        box = box_of(size)
        view = _scaled_view(data, target, size, box)
        if view is not None:
            return view
        pixels = _decode_jpeg(data)
        if pixels is None:
            pixels = _decode_by_pillow(data, where)
    return _mirrored(_resized(_inside(pixels, box), target), box)


def _jpeg_size(data: bytes, where: str) -> tuple[int, int] | None:
    """Height and width of a JPEG file whose colours simplejpeg turns into RGB; None for every other file."""
    if not data.startswith(_JPEG_MAGIC):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(int(width), int(height), where)
    return None if colours in ("CMYK", "YCCK") else (int(height), int(width))


def _decode_jpeg(data: bytes, least: tuple[int, int] = (0, 0)) -> np.ndarray | None:
    """RGB pixels at the smallest scale that has `least` rows and columns; None where libjpeg-turbo warns or fails."""
    try:
        return simplejpeg.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1])
    except ValueError:
        return None


def _scaled_view(data: bytes, target: tuple[int, int], size: tuple[int, int], box: CropBox) -> Tensor | None:
    """The view by way of a decode at 1/2, 1/4 or 1/8; None where the crop is too small for it, or the file is odd.

    Pixel i of a decode at 1/f covers pixels f·i … f·i + f − 1 of the image, so the crop's edges, divided by f, are
    fractions. Rounding them would shift the view by up to half a pixel; Pillow resizes from a fractional box.
    """
    spare = min(box.height // (_SPARE * target[0]), box.width // (_SPARE * target[1]))
    factor = next((factor for factor in _FACTORS if factor <= spare), 1)
    height, width = -(-size[0] // factor), -(-size[1] // factor)
    if factor == 1:
        return None
    pixels = _decode_jpeg(data, least=(height, width))
    if pixels is None or pixels.shape[:2] != (height, width):
        return None
    left, top = box.left / factor, box.top / factor
    fractional = (left, top, left + box.width / factor, top + box.height / factor)
    view = Image.fromarray(pixels).resize((target[1], target[0]), Image.Resampling.BICUBIC, box=fractional)
    return _mirrored(torch.from_numpy(np.array(view)).permute(2, 0, 1), box)


def _inside(pixels: np.ndarray, box: CropBox) -> np.ndarray:
    return np.ascontiguousarray(pixels[box.top : box.top + box.height, box.left : box.left + box.width])


def _resized(pixels: np.ndarray, target: tuple[int, int]) -> Tensor:
    """[h, w, 3] to [3, *target] by PyTorch's uint8 kernel: Pillow's arithmetic, several times faster."""
    image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    return interpolate(image, target, mode="bicubic", antialias=True, align_corners=False)[0]


def _mirrored(view: Tensor, box: CropBox) -> Tensor:
    # By NumPy: PyTorch would start threads of its own for it in every thread that decodes.
    pixels = view.numpy()
    return torch.from_numpy(np.ascontiguousarray(pixels[..., ::-1] if box.flip else pixels))


def _check_size(width: int, height: int, where: str) -> None:
    try:
        check_pixels(width, height)
    except TooManyPixelsError as error:
        raise DataError(f"{where}: {error}; or remove the sample") from error


def _decode_by_pillow(data: bytes, where: str) -> np.ndarray:
    limit = max_image_pixels()
    if limit != Image.MAX_IMAGE_PIXELS:
        # Pillow's own limit also guards frames and thumbnails inside a file, so it moves with ours. It only warns up to
        # twice the limit: the error is raised here.
        Image.MAX_IMAGE_PIXELS = limit
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(*image.size, where)
            image.load()
            return np.array(_to_rgb(image, where), dtype=np.uint8)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where}: {refusal('too many pixels', limit)}; or remove the sample") from error
    except UnidentifiedImageError as error:  # its own text holds an address in memory, another one each time
        raise DataError(
            f"{where}: the image cannot be decoded (none of {', '.join(_FORMATS)}); replace it or remove the sample"
        ) from error
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
    if image.mode in ("P", "PA", "LA"):  # a palette with a transparent entry converts without a warning only as RGBA
        image = image.convert("RGBA")
    return image.convert("RGB")
