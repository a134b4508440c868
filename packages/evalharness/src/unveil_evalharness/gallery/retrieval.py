"""A retrieval query with what was found for it, right answers ticked and wrong ones crossed."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from unveil_evalharness.gallery.canvas import GAP, INK, PAPER, ImageLike, fitted, font, wrapped
from unveil_evalharness.gallery.colours import RIGHT, WRONG, Colour, ink_on

__all__ = ["retrieval_strip"]

_TILE = 128
_MARK = 18


def retrieval_strip(
    query: ImageLike | str, found: Sequence[ImageLike | str], right: Sequence[bool], *, tile: int = _TILE
) -> Image.Image:
    """One row: the query, then the first few candidates in the order of their rank.

    Args:
        query: an image, or a caption.
        found: the best candidates first: images for a caption, captions for an image. Five are enough.
        right: whether each candidate is a right answer.
        tile: width and height of one item in pixels.

    Raises:
        ValueError: not one mark per candidate.
    """
    tiles = [_tile(query, tile, INK, "query")]
    tiles += [
        _tile(item, tile, RIGHT if hit else WRONG, f"{rank} {'✓' if hit else '✗'}")
        for rank, (item, hit) in enumerate(zip(found, right, strict=True), start=1)
    ]
    height = tile + _MARK
    result = Image.new("RGB", (len(tiles) * (tile + GAP) + GAP, height), PAPER)
    left = 0
    for index, item in enumerate(tiles):
        result.paste(item, (left, 0))
        left += tile + (3 * GAP if index == 0 else GAP)
    return result.crop((0, 0, left - (3 * GAP if len(tiles) == 1 else GAP), height))


def _tile(item: ImageLike | str, side: int, colour: Colour, mark: str) -> Image.Image:
    """A framed square with a tab that bears the mark."""
    result = Image.new("RGB", (side, side + _MARK), PAPER)
    draw = ImageDraw.Draw(result)
    if isinstance(item, str):
        lines = wrapped(item, side - 14, (side - 12) // 16)
        draw.multiline_text((7, _MARK + 6), "\n".join(lines), fill=INK, font=font(), spacing=1)
    else:
        picture = fitted(item, side - 6)
        result.paste(picture, ((side - picture.width) // 2, _MARK + (side - picture.height) // 2))
    draw.rectangle((0, _MARK, side - 1, side + _MARK - 1), outline=colour, width=3)
    width = int(font(12).getlength(mark)) + 12
    draw.rectangle((0, 0, width, _MARK), fill=colour)
    draw.text((6, 1), mark, fill=ink_on(colour), font=font(12))
    return result
