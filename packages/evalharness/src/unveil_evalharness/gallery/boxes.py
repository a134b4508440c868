"""Boxes and instance masks of a detector drawn on the image."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Num
from PIL import Image, ImageDraw

from unveil_evalharness.gallery.canvas import SIDE, ImageLike, fitted, font, to_image
from unveil_evalharness.gallery.colours import PALETTE, Colour, ink_on

__all__ = ["draw_boxes", "draw_masks"]

_OPACITY = 0.45


def draw_boxes(
    image: ImageLike,
    boxes: Num[np.ndarray, "n 4"] | Sequence[Sequence[float | int]],
    labels: Sequence[str] = (),
    *,
    scores: Sequence[float] = (),
    colours: Sequence[Colour] = (),
    side: int = SIDE,
) -> Image.Image:
    """The image, scaled to at most `side` pixels, with a frame and a label per box.

    Args:
        image: the image the boxes belong to.
        boxes: left, top, right, bottom in pixels of `image`.
        labels: one per box, or none at all.
        scores: one per box, printed behind the label; or none at all.
        colours: one per box; the palette in turn when left out.
        side: longest side of the result.

    Raises:
        ValueError: the numbers of boxes, labels, scores or colours differ.
    """
    whole = to_image(image)
    picture = fitted(whole, side)
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    _check_counts(len(corners), labels=labels, scores=scores, colours=colours)
    scale = np.tile([picture.width / whole.width, picture.height / whole.height], 2)
    draw = ImageDraw.Draw(picture)
    shown = [_clipped(corner * scale, picture.size) for corner in corners]
    for index, corner in enumerate(shown):
        draw.rectangle(corner, outline=_colour(colours, index), width=3)
    for index, corner in enumerate(shown):  # labels last: no frame crosses a word
        words = labels[index] if labels else ""
        if scores:
            words = f"{words} {scores[index]:.2f}".strip()
        if words:
            _draw_label(draw, corner, words, _colour(colours, index), picture.size)
    return picture


def draw_masks(
    image: ImageLike,
    masks: Bool[np.ndarray, "n h w"],
    labels: Sequence[str] = (),
    *,
    scores: Sequence[float] = (),
    colours: Sequence[Colour] = (),
    side: int = SIDE,
) -> Image.Image:
    """As `draw_boxes` with a mask per instance: filled transparently, outlined, labelled at its bounding box.

    An empty mask is left out. Shapes: `masks` has the height and width of `image`.

    Raises:
        ValueError: a mask has another size than the image, or the numbers of masks and labels differ.
    """
    whole = to_image(image)
    if masks.shape[1:] != (whole.height, whole.width):
        raise ValueError(f"masks of {masks.shape[1:]} pixels do not fit an image of {(whole.height, whole.width)}")
    _check_counts(len(masks), labels=labels, scores=scores, colours=colours)
    pixels = np.asarray(whole, dtype=np.float64).copy()
    kept = [index for index in range(len(masks)) if masks[index].any()]
    for index in kept:
        mask, colour = np.asarray(masks[index], dtype=bool), np.asarray(_colour(colours, index), dtype=np.float64)
        pixels[mask] = (1 - _OPACITY) * pixels[mask] + _OPACITY * colour
        pixels[_outline(mask, max(1, max(whole.size) // side))] = colour
    return draw_boxes(
        pixels.round().astype(np.uint8),
        [_bounds(masks[index]) for index in kept],
        [labels[index] for index in kept] if labels else (),
        scores=[scores[index] for index in kept] if scores else (),
        colours=[_colour(colours, index) for index in kept],
        side=side,
    )


def _check_counts(count: int, *, labels: Sequence[str], scores: Sequence[float], colours: Sequence[Colour]) -> None:
    for name, given in (("labels", labels), ("scores", scores), ("colours", colours)):
        if len(given) not in (0, count):
            raise ValueError(f"{count} instances but {len(given)} {name}; give one for each, or none at all")


def _colour(colours: Sequence[Colour], index: int) -> Colour:
    return colours[index] if colours else PALETTE[index % len(PALETTE)]


def _clipped(corner: Float[np.ndarray, "4"], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box in whole pixels of the picture with right ≥ left and bottom ≥ top, whatever the detector said."""
    left, top, right, bottom = (round(float(value)) for value in np.nan_to_num(corner))
    width, height = size
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return left, top, min(max(right, left), width - 1), min(max(bottom, top), height - 1)


def _draw_label(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int, int, int], words: str, colour: Colour, size: tuple[int, int]
) -> None:
    letters = font(11)
    width, height = int(letters.getlength(words)) + 4, 14
    left = max(0, min(corner[0], size[0] - width))
    top = corner[1] - height if corner[1] >= height else corner[1]
    draw.rectangle((left, top, left + width, top + height), fill=colour)
    draw.text((left + 2, top), words, fill=ink_on(colour), font=letters)


def _outline(mask: Bool[np.ndarray, "h w"], thickness: int) -> Bool[np.ndarray, "h w"]:
    """The pixels of `mask` within `thickness` steps of a pixel outside it; the image's edge is no outside."""
    inner = mask
    for _ in range(thickness):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _bounds(mask: Bool[np.ndarray, "h w"]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])
