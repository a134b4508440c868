"""What annotations may ask of memory: sizes of images, and run-length masks that cover exactly their image.

pycocotools reserves height times width for every mask, and writes run after run into it, as the file says.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unveil_backbones.errors import TooManyPixelsError
from unveil_backbones.limits import check_pixels

from unveil_evalharness.errors import DataError

__all__ = ["check_outlines", "check_sizes"]

_MORE, _SIGN, _BITS = 0x20, 0x10, 5


def check_sizes(path: Path, images: Sequence[Mapping[str, Any]]) -> None:
    """Refuses images whose stated size is no size, or more than is decoded.

    Raises:
        DataError: names the file and the image.
    """
    for image in images:
        size = (image["width"], image["height"])
        if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size):
            raise DataError(
                f"{path}: {image['file_name']!r} has width {str(size[0])[:20]} and height {str(size[1])[:20]}; "
                "both are whole numbers of pixels"
            )
        try:
            check_pixels(*size)
        except TooManyPixelsError as error:
            raise DataError(f"{path}: {image['file_name']!r} has {error}") from error


def check_outlines(path: Path, images: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]) -> None:
    """Refuses run-length masks of another size than their image, or with more or fewer pixels.

    Raises:
        DataError: names the file and the annotation.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    for number, annotation in enumerate(annotations):
        outline = annotation.get("segmentation")
        if not isinstance(outline, dict):
            continue
        height, width = sizes[annotation["image_id"]]
        size, counts = outline.get("size"), outline.get("counts")
        if size != [height, width] or _covered(counts) != height * width:
            raise DataError(
                f"{path}: annotations[{number}] has a run-length mask of size {str(size)[:40]} with "
                f"{_covered(counts)} pixels; its image is {height} x {width}, and the runs must cover exactly that"
            )


def _covered(counts: object) -> int | None:
    """Pixels that all runs cover; None where these are no runs."""
    if isinstance(counts, list):
        return sum(counts) if all(isinstance(run, int) and run >= 0 for run in counts) else None
    return _covered(_runs(counts)) if isinstance(counts, str) else None


def _runs(text: str) -> list[int] | None:
    """COCO's compressed runs: groups of five bits, the lowest first, each as a difference to the run but one before."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            return None
        value |= (code & 0x1F) << shift
        shift += _BITS
        if code & _MORE:
            continue
        if code & _SIGN:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    return None if shift else runs
