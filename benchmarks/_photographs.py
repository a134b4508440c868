"""JPEG files of a photograph's size and detail, drawn, for whoever has none at hand."""

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["write_photographs"]


def write_photographs(folder: Path, *, num: int = 24, size: tuple[int, int] = (375, 500)) -> Path:
    """Write smooth shapes under noise of a camera's strength, as JPEG of quality 90; about 45 kB a file.

    Args:
        folder: Where; made if it is not there.
        num: How many.
        size: Height and width in pixels; ImageNet's photographs are of about this size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, cols = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    for number in range(num):
        draw = np.random.default_rng(number)
        planes = []
        for _ in range(3):
            waves = sum(
                np.sin(2 * np.pi * (a * rows + b * cols) + c) / (1 + abs(a) + abs(b))
                for a, b, c in zip(draw.normal(0, 6, 12), draw.normal(0, 6, 12), draw.uniform(0, 6, 12), strict=True)
            )
            planes.append(128 + 60 * waves + draw.normal(0, 6, size))
        pixels = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.jpg", quality=90)
    return folder
