"""Backgrounds: eight kinds of texture in muted colours, each drawn from a generator so that no two are alike."""

import colorsys
from typing import Final

import numpy as np

__all__ = ["TEXTURES", "texture"]

TEXTURES: Final = ("stripes", "checks", "dots", "noise", "gradient", "waves", "bricks", "rings")

_REFERENCE_SIDE: Final = 64.0  # periods below are in pixels of a 64-pixel image and grow with the image
_GRAIN: Final = 0.02


def texture(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """One background, float32 [h, w, 3] in [0, 1].

    Args:
        kind: One of `TEXTURES`.
        height: Pixels.
        width: Pixels.
        rng: Source of period, angle, colours and grain.
    """
    unit = min(height, width) / _REFERENCE_SIDE
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(unit)
    weight = _pattern(kind, rows, columns, rng)[..., None]
    first, second = _colour_pair(rng)
    picture = first * (1 - weight) + second * weight
    # A slow change of light and a fine grain keep flat areas from being reconstructed by copying a neighbour.
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.14)
    light = (np.cos(angle) * rows + np.sin(angle) * columns) / _REFERENCE_SIDE
    picture = picture + (strength * (light - light.mean()))[..., None]
    picture = picture + rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(_GRAIN)
    return np.clip(picture, 0, 1).astype(np.float32)


def _pattern(kind: str, rows: np.ndarray, columns: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share of the second colour at each pixel, float32 [h, w] in [0, 1]."""
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * columns + np.sin(angle) * rows
    across = -np.sin(angle) * columns + np.cos(angle) * rows
    period, phase = rng.uniform(7, 13), rng.uniform(0, 13)
    match kind:
        case "stripes":
            value = _square((along + phase) / period)
        case "checks":
            value = _square((along + phase) / period) * 2 - 1
            value = 0.5 + 0.5 * value * (_square((across + phase) / period) * 2 - 1)
        case "dots":
            value = _dots(along + phase, across + phase, period, rng.uniform(0.26, 0.36))
        case "noise":
            value = _value_noise(rows, columns, rng.uniform(3, 6), rng)
        case "gradient":
            value = (along - along.min()) / (along.max() - along.min())
        case "waves":
            bend = rng.uniform(1.5, 3.0) * np.sin(2 * np.pi * across / rng.uniform(14, 24))
            value = 0.5 + 0.5 * np.sin(2 * np.pi * (along + bend + phase) / period)
        case "bricks":
            value = _bricks(rows + phase, columns + phase, rng.uniform(7, 11))
        case "rings":
            centre_row, centre_column = rng.uniform(10, 54, size=2)
            value = 0.5 + 0.5 * np.sin(2 * np.pi * np.hypot(rows - centre_row, columns - centre_column) / period)
        case _:
            raise ValueError(f"texture {kind!r} is unknown; choose one of {', '.join(TEXTURES)}")
    return value.astype(np.float32)


def _square(turns: np.ndarray) -> np.ndarray:
    """A square wave of period 1 with softened edges, in [0, 1]."""
    return np.clip(0.5 + 4.0 * np.sin(2 * np.pi * turns), 0, 1)


def _dots(along: np.ndarray, across: np.ndarray, period: float, radius: float) -> np.ndarray:
    """Discs on a square lattice; `radius` as a share of the period."""
    distance = np.hypot(along / period % 1 - 0.5, across / period % 1 - 0.5)
    return np.clip(0.5 + (radius - distance) * period, 0, 1)


def _bricks(rows: np.ndarray, columns: np.ndarray, brick_height: float) -> np.ndarray:
    """Mortar lines between bricks twice as wide as high, every other course shifted by half a brick."""
    course = np.floor(rows / brick_height)
    shifted = columns / (2 * brick_height) + 0.5 * (course % 2)
    gap_rows = np.abs(rows / brick_height % 1 - 0.5) * brick_height
    gap_columns = np.abs(shifted % 1 - 0.5) * 2 * brick_height
    edge = np.maximum(gap_rows - brick_height / 2, gap_columns - brick_height)
    return np.clip(edge + 1.4, 0, 1)


def _value_noise(rows: np.ndarray, columns: np.ndarray, period: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth blotches: random values on a lattice of the given period, interpolated bilinearly and stretched."""
    row, column = rows / period, columns / period
    lattice = rng.random((int(row.max()) + 2, int(column.max()) + 2), dtype=np.float32)
    top, left = row.astype(np.int64), column.astype(np.int64)
    down, right = row - top, column - left
    upper = lattice[top, left] * (1 - right) + lattice[top, left + 1] * right
    lower = lattice[top + 1, left] * (1 - right) + lattice[top + 1, left + 1] * right
    return np.clip((upper * (1 - down) + lower * down - 0.5) * 1.6 + 0.5, 0, 1)


def _colour_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two muted colours (float32 [3]) that differ visibly in brightness."""
    hue, dark = rng.random(), rng.uniform(0.28, 0.5)
    light = dark + rng.uniform(0.16, 0.3)
    pair = []
    for brightness in (dark, light) if rng.random() < 0.5 else (light, dark):
        saturation = rng.uniform(0.05, 0.34)
        shade = colorsys.hsv_to_rgb((hue + rng.uniform(-0.12, 0.12)) % 1, saturation, brightness)
        pair.append(np.array(shade, dtype=np.float32))
    return pair[0], pair[1]
