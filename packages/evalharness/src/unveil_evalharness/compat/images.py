"""The first step of an mmdet or mmseg pipeline: any image file to RGB pixels, or an error that names the file.

mmcv's own loader hands on ``None`` for a file it cannot decode and a half-grey picture for a truncated one.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from unveil_evalharness.errors import DataError
from unveil_evalharness.opening import opened_image

__all__ = ["LoadRgb", "read_rgb"]

_BITS_OF_16 = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def read_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an image file: palettes resolved, grey repeated, transparency dropped, 16 bits scaled to 8.

    Raises:
        DataError: the file is missing, truncated, or no image.
    """
    try:
        with warnings.catch_warnings():
            # A palette image with a transparent colour is legitimate; Pillow only advises another mode.
            warnings.filterwarnings("ignore", message="Palette images with Transparency", category=UserWarning)
            with opened_image(path) as image:
                if image.mode in _BITS_OF_16:
                    grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                    return np.repeat(grey[:, :, None], 3, axis=2)
                return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"cannot decode the image {path}: {error}; replace it or leave it out of the set") from error


class LoadRgb:
    """Pipeline step: fills ``img`` (RGB, uint8), ``img_shape`` and ``ori_shape`` from ``img_path``.

    Where the record states the image's size (COCO does), a file of another size is refused: boxes and masks would
    not lie where they should.
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Adds the image to a pipeline record.

        Raises:
            DataError: see `read_rgb`, or the size is not the one on record.
        """
        path = Path(results["img_path"])
        pixels = read_rgb(path)
        size = pixels.shape[:2]
        stated = (results.get("height", size[0]), results.get("width", size[1]))
        if size != stated:
            raise DataError(
                f"{path} has {size[1]} x {size[0]} pixels but its annotation file says {stated[1]} x {stated[0]}; "
                "restore the image that was annotated"
            )
        return {**results, "img": pixels, "img_shape": size, "ori_shape": size}
