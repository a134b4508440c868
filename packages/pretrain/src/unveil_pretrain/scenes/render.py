"""From a planned scene to pixels, one mask per digit and the map of backgrounds."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from unveil_pretrain.scenes.digits import DigitBank
from unveil_pretrain.scenes.layout import COLOURS, Item, Scene
from unveil_pretrain.scenes.textures import texture

__all__ = ["Rendered", "render"]

_INK_LOW, _INK_HIGH = 0.36, 0.56  # below: transparent, above: opaque; in between the anti-aliased edge


@dataclass(frozen=True, slots=True)
class Rendered:
    """A drawn scene.

    Attributes:
        image: uint8 [h, w, 3].
        masks: bool [n, h, w], the visible pixels of each of the scene's items; no pixel belongs to two.
        background: int64 [h, w], which of the scene's textures lies behind each pixel.
    """

    image: np.ndarray
    masks: np.ndarray
    background: np.ndarray


def render(scene: Scene, bank: DigitBank) -> Rendered:
    """Draw the textures, then the digits back to front; what is hidden leaves the mask of what is behind."""
    rng = np.random.Generator(np.random.Philox(key=scene.entropy))
    picture, background = _backdrop(scene, rng)
    masks = np.zeros((len(scene.items), scene.height, scene.width), dtype=bool)
    for number, item in enumerate(scene.items):
        ink, top, left = _stamp(bank.images[item.source], item, scene)
        window = (slice(top, top + ink.shape[0]), slice(left, left + ink.shape[1]))
        _paint(picture[window], ink, item, rng)
        solid = ink > 0.5
        masks[:number, window[0], window[1]] &= ~solid
        masks[number, window[0], window[1]] = solid
    image = (picture * 255 + 0.5).astype(np.uint8)
    return Rendered(image=image, masks=masks, background=background)


def _backdrop(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (float32 [h, w, 3]) and texture numbers (int64 [h, w]); two textures meet along a slanted line."""
    layers = [texture(kind, scene.height, scene.width, rng) for kind in scene.textures]
    if len(layers) == 1:
        return layers[0], np.zeros((scene.height, scene.width), dtype=np.int64)
    rows, columns = np.mgrid[0 : scene.height, 0 : scene.width]
    angle = rng.uniform(0, 2 * np.pi)
    level = np.cos(angle) * (columns / scene.width - 0.5) + np.sin(angle) * (rows / scene.height - 0.5)
    second = level > rng.uniform(-0.15, 0.15)
    return np.where(second[..., None], layers[1], layers[0]), second.astype(np.int64)


def _stamp(ink_8x8: np.ndarray, item: Item, scene: Scene) -> tuple[np.ndarray, int, int]:
    """Opacity (float32 [h, w] in [0, 1]) of a digit at its size and tilt, and its top and left in the image."""
    # Empty pixels around let the strokes round off and give the tilt room; the drawing itself is eight pixels high.
    side = max(6, round(item.height * 12 / 8))
    framed = Image.fromarray(np.pad(ink_8x8, 2))
    drawn = framed.resize((side, side), Image.Resampling.BICUBIC).rotate(item.tilt, Image.Resampling.BICUBIC)
    opacity = np.asarray(drawn, dtype=np.float32) / np.float32(255)
    opacity = np.clip((opacity - _INK_LOW) / (_INK_HIGH - _INK_LOW), 0, 1)
    top, left = round(item.centre[1] - side / 2), round(item.centre[0] - side / 2)
    cut_top, cut_left = max(0, -top), max(0, -left)
    opacity = opacity[cut_top : scene.height - top, cut_left : scene.width - left]
    return opacity, top + cut_top, left + cut_left


def _paint(window: np.ndarray, ink: np.ndarray, item: Item, rng: np.random.Generator) -> None:
    """Blend one digit into `window` in place: a soft shadow, then its colour, lighter at the top than at the bottom."""
    shadow = np.zeros_like(ink)
    shadow[1:, 1:] = ink[:-1, :-1]
    window *= 1 - 0.45 * shadow[..., None]
    jitter = rng.uniform(-0.04, 0.04, size=3)
    shade = np.linspace(0.06, -0.08, ink.shape[0], dtype=np.float32)[:, None, None]
    colour = np.clip(np.array(COLOURS[item.colour]) + jitter + shade, 0, 1).astype(np.float32)
    window += ink[..., None] * (colour - window)
