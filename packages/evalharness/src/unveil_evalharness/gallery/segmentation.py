"""Label maps of a segmenter laid over the image, and the names of the classes in them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageDraw

from unveil_evalharness.gallery.canvas import INK, PAPER, SIDE, ImageLike, font, to_image
from unveil_evalharness.gallery.colours import Colour, class_palette

__all__ = ["draw_segmentation", "legend"]

_OPACITY = 0.6
_LINE = 20


def draw_segmentation(
    image: ImageLike,
    label_map: Integer[np.ndarray, "h w"],
    palette: UInt8[np.ndarray, "n 3"] | None = None,
    *,
    ignore_index: int = 255,
    side: int = SIDE,
) -> Image.Image:
    """The image, scaled to at most `side` pixels, under the colours of its label map; ignored pixels stay bare.

    Args:
        image: the image the label map belongs to.
        label_map: class indices with the height and width of `image`.
        palette: a colour per class; `class_palette` when left out.
        ignore_index: value of pixels without a class.
        side: longest side of the result.

    Raises:
        ValueError: the label map has another size, or a class that the palette does not have.
    """
    whole = to_image(image)
    if label_map.shape != (whole.height, whole.width):
        raise ValueError(f"a label map of {label_map.shape} does not fit an image of {(whole.height, whole.width)}")
    labelled = label_map != ignore_index
    highest = int(label_map[labelled].max()) if labelled.any() else 0
    colours = class_palette(highest + 1) if palette is None else palette
    if highest >= len(colours):
        raise ValueError(f"the label map has class {highest}, the palette only {len(colours)} colours")
    # Scale first, then blend: label maps are never interpolated.
    scale = min(side / max(whole.size), 2.0)
    size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
    pixels = np.asarray(whole.resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
    small = np.asarray(
        Image.fromarray(label_map.astype(np.int32)).resize(size, Image.Resampling.NEAREST), dtype=np.int64
    )
    shown = small != ignore_index
    painted = pixels.copy()
    painted[shown] = (1 - _OPACITY) * pixels[shown] + _OPACITY * colours[small[shown]]
    painted[_edges(small)] = 255
    return Image.fromarray(painted.round().astype(np.uint8))


def legend(names: Sequence[str], colours: Sequence[Colour], *, width: int = SIDE) -> Image.Image:
    """A key of coloured squares with names, wrapped to `width` pixels.

    Raises:
        ValueError: not one colour per name.
    """
    places: list[tuple[int, int]] = []
    left, top = 0, 0
    for name in names:
        needed = 16 + int(font(12).getlength(name)) + 12
        if left and left + needed > width:
            left, top = 0, top + _LINE
        places.append((left, top))
        left += needed
    result = Image.new("RGB", (width, top + _LINE), PAPER)
    draw = ImageDraw.Draw(result)
    for name, colour, (x, y) in zip(names, colours, places, strict=True):
        draw.rectangle((x, y + 4, x + 11, y + 15), fill=tuple(int(value) for value in colour), outline=INK)
        draw.text((x + 16, y + 2), name, fill=INK, font=font(12))
    return result


def _edges(labels: Integer[np.ndarray, "h w"]) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label: a second cue beside colour."""
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges
