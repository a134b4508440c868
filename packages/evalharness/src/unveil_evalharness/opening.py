"""Image files of a data set: opened by Pillow in a few formats only, within a limit of pixels, and inside their folder.

Pillow knows formats by their first bytes, whatever a file is called, and hands some of them to other programs
(PostScript to Ghostscript); here only formats are opened that evaluation images come in.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from PIL import Image
from unveil_backbones.limits import check_pixels, max_image_pixels, refusal

from unveil_evalharness.errors import DataError

__all__ = ["FORMATS", "inside", "opened_image"]

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Names of Pillow's."""


@contextmanager
def opened_image(source: Path | bytes) -> Iterator[Image.Image]:
    """An image file whose header was read and found acceptable; its pixels are decoded when they are asked for.

    Args:
        source: A file, or its bytes.

    Raises:
        OSError: it is no image of `FORMATS`, or cannot be read.
        ValueError: it has more pixels than `unveil_backbones.limits.max_image_pixels`.
    """
    limit = max_image_pixels()
    if limit != Image.MAX_IMAGE_PIXELS:
        # Pillow's own limit also guards frames and thumbnails inside a file, so it moves with ours.
        Image.MAX_IMAGE_PIXELS = limit
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(refusal("too many pixels", limit)) from error
    with image:
        check_pixels(image.width, image.height)
        yield image


def inside(folder: Path, name: object, where: object) -> Path:
    """The file of this name in a folder; a name from an annotation file must not lead to another place.

    Links that lie in the folder are followed: whoever laid out the data made them.

    Args:
        folder: The folder that the annotations speak of.
        name: A relative path, with slashes.
        where: The file that has the name, for messages.

    Raises:
        DataError: the name is no text, is absolute, climbs out by ``..``, or holds a NUL.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{where} has the file name {str(name)[:80]!r}; it must be the name of a file in {folder}")
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise DataError(
            f"{where} has the file name {name[:80]!r}, which leads out of {folder}; write it relative to that folder"
        )
    return folder / name
