"""ADE20K SceneParsing layout: images/, annotations/ (PNG, 0 = unlabelled) and the table objectInfo<N>.txt."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from unveil_pretrain.scenes.digits import DIGIT_NAMES, Split
from unveil_pretrain.scenes.layout import Scene
from unveil_pretrain.scenes.pictures import Picture, encode_jpeg
from unveil_pretrain.scenes.textures import TEXTURES

__all__ = ["CLASSES", "ClassCount", "label_map", "write_ade20k", "write_object_info"]

CLASSES: Final = (*DIGIT_NAMES, *TEXTURES)
"""Class k of this list has the value k + 1 in the label images."""

_FOLDERS: Final[dict[Split, str]] = {"train": "training", "val": "validation"}
_FRAME_SHARE, _CORNER_SHARE = 0.5, 0.3


@dataclass(frozen=True, slots=True)
class ClassCount:
    """What the table of classes says of one split: pixels (float64 [n]) and images (int64 [n]) per class."""

    pixels: np.ndarray
    images: np.ndarray


def label_map(picture: Picture) -> np.ndarray:
    """uint8 [h, w]: the digit or the texture at each pixel, 0 in a frame or corner that is left unlabelled."""
    texture_values = np.array([len(DIGIT_NAMES) + 1 + TEXTURES.index(kind) for kind in picture.scene.textures])
    labels = texture_values[picture.drawn.background].astype(np.uint8)
    for item, mask in zip(picture.scene.items, picture.drawn.masks, strict=True):
        labels[mask] = item.digit + 1
    labels[_unlabelled(picture.scene)] = 0
    return labels


def _unlabelled(scene: Scene) -> np.ndarray:
    """Pixels without a label (bool [h, w]): in half of the scenes a thin frame, in a third of the others one corner."""
    rng = np.random.Generator(np.random.Philox(key=scene.entropy + 1))
    hidden = np.zeros((scene.height, scene.width), dtype=bool)
    short = min(scene.height, scene.width)
    if rng.random() < _FRAME_SHARE:
        width = int(rng.integers(1, max(2, short // 20) + 1))
        hidden[:] = True
        hidden[width:-width, width:-width] = False
    elif rng.random() < _CORNER_SHARE:
        height, width = rng.integers(short // 6, short // 3 + 1, size=2)
        rows = slice(0, int(height)) if rng.random() < 0.5 else slice(-int(height), None)
        columns = slice(0, int(width)) if rng.random() < 0.5 else slice(-int(width), None)
        hidden[rows, columns] = True
    return hidden


def write_ade20k(folder: Path, split: Split, stream: Iterable[Picture]) -> ClassCount:
    """Write one split and count its classes."""
    images, annotations = folder / "images" / _FOLDERS[split], folder / "annotations" / _FOLDERS[split]
    images.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    pixels, present = np.zeros(len(CLASSES)), np.zeros(len(CLASSES), dtype=np.int64)
    for picture in stream:
        name = f"ADE_{split}_{picture.index + 1:08d}"
        labels = label_map(picture)
        (images / f"{name}.jpg").write_bytes(encode_jpeg(picture.drawn.image))
        Image.fromarray(labels).save(annotations / f"{name}.png")
        counts = np.bincount(labels.ravel(), minlength=len(CLASSES) + 1)[1:]
        pixels += counts / labels.size
        present += counts > 0
    return ClassCount(pixels=pixels, images=present)


def write_object_info(folder: Path, train: ClassCount, val: ClassCount, *, num_images: int) -> None:
    """`objectInfo<N>.txt`, tab separated: Idx, Ratio (share of pixels), Train and Val (images with the class), Name."""
    ratio = (train.pixels + val.pixels) / max(1, num_images)
    lines = ["Idx\tRatio\tTrain\tVal\tName"] + [
        f"{number + 1}\t{ratio[number]:.4f}\t{train.images[number]}\t{val.images[number]}\t{name}"
        for number, name in enumerate(CLASSES)
    ]
    (folder / f"objectInfo{len(CLASSES)}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
