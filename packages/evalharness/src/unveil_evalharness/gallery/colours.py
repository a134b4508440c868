"""Colours of drawn predictions.

The palette is Okabe and Ito's ("Color Universal Design", 2008), told apart under the common colour-vision deficiencies;
black is left out because it vanishes on dark pictures. Where there are more classes than colours, lightness varies too;
no palette of 150 classes can be told apart by colour alone, so `legend` names the classes of a picture.
"""

import colorsys

import numpy as np
from jaxtyping import UInt8

__all__ = ["PALETTE", "RIGHT", "WRONG", "Colour", "class_palette", "ink_on"]

Colour = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
)
"""RGB, each channel in [0, 255]."""

RIGHT: Colour = PALETTE[0]
"""A right answer; drawn with a tick, never by colour alone."""
WRONG: Colour = PALETTE[5]
"""A wrong answer; drawn with a cross."""

_LIGHTNESS_STEPS = (1.0, 0.6, 1.35, 0.8, 1.2, 0.45)


def class_palette(num_classes: int) -> UInt8[np.ndarray, "n 3"]:
    """One colour per class index: `PALETTE` first, then the same hues darker and lighter, in a fixed order."""
    colours = []
    for index in range(num_classes):
        hue, lightness, saturation = colorsys.rgb_to_hls(*(value / 255 for value in PALETTE[index % len(PALETTE)]))
        cycle, position = divmod(index // len(PALETTE), len(_LIGHTNESS_STEPS))
        scaled = min(0.95, lightness * _LIGHTNESS_STEPS[position])
        # Further rounds turn the hue a little, so that no two of several hundred classes are equal.
        colours.append(colorsys.hls_to_rgb((hue + 0.029 * cycle) % 1.0, scaled, saturation))
    return (255 * np.asarray(colours, dtype=np.float64).reshape(-1, 3)).round().astype(np.uint8)


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever reads better on `colour` (relative luminance of WCAG 2, section 1.4.3)."""
    channels = [value / 255 for value in colour]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
