"""COCO layout: <split>2017/*.jpg, annotations/instances_<split>2017.json and captions_<split>2017.json."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from unveil_pretrain.scenes.captions import captions_for
from unveil_pretrain.scenes.digits import DIGIT_NAMES, Split
from unveil_pretrain.scenes.pictures import Picture, encode_jpeg
from unveil_pretrain.scenes.polygons import crowd_segmentation, instance_segmentation

__all__ = ["write_coco"]

_MIN_AREA: Final = 12  # pixels; less of a digit than that is not annotated
_FIRST_IMAGE_ID: Final[dict[Split, int]] = {"train": 1, "val": 500_001}  # ids differ between the splits, as in COCO
_INFO: Final = {"description": "digit scenes", "version": "1.0", "year": 2017, "contributor": "unveil-pretrain"}
_LICENSES: Final = [{"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}]
_CATEGORIES: Final = [
    {"supercategory": "digit", "id": digit + 1, "name": name} for digit, name in enumerate(DIGIT_NAMES)
]


def write_coco(folder: Path, split: Split, stream: Iterable[Picture]) -> None:
    """Write one split's images and its two annotation files."""
    image_folder, annotation_folder = folder / f"{split}2017", folder / "annotations"
    image_folder.mkdir(parents=True, exist_ok=True)
    annotation_folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for picture in stream:
        image_id = _FIRST_IMAGE_ID[split] + picture.index
        name = f"{image_id:012d}.jpg"
        (image_folder / name).write_bytes(encode_jpeg(picture.drawn.image))
        images.append(
            {
                "license": 1,
                "file_name": name,
                "height": picture.scene.height,
                "width": picture.scene.width,
                "id": image_id,
            }
        )
        instances += _instances(picture, image_id)
        captions += [{"image_id": image_id, "caption": caption} for caption in captions_for(picture.scene)]
    shared = {"info": _INFO, "licenses": _LICENSES, "images": images}
    files = {
        "instances": shared | {"annotations": _numbered(instances), "categories": _CATEGORIES},
        "captions": shared | {"annotations": _numbered(captions)},
    }
    for kind, content in files.items():
        (annotation_folder / f"{kind}_{split}2017.json").write_text(json.dumps(content), encoding="utf-8")


def _numbered(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [annotation | {"id": number} for number, annotation in enumerate(annotations, start=1)]


def _instances(picture: Picture, image_id: int) -> list[dict[str, Any]]:
    """One annotation per visible digit, and one crowd annotation for all members of a group."""
    found = []
    crowd = np.array([item.crowd for item in picture.scene.items], dtype=bool)
    for item, mask in zip(picture.scene.items, picture.drawn.masks, strict=True):
        if not item.crowd and mask.sum() >= _MIN_AREA:
            found.append(_annotation(mask, image_id, item.digit, is_crowd=False))
    if crowd.any():
        mask = np.logical_or.reduce(picture.drawn.masks[crowd], axis=0)
        if mask.sum() >= _MIN_AREA:
            digit = picture.scene.items[int(crowd.argmax())].digit
            found.append(_annotation(mask, image_id, digit, is_crowd=True))
    return found


def _annotation(mask: np.ndarray, image_id: int, digit: int, *, is_crowd: bool) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return {
        "segmentation": crowd_segmentation(mask) if is_crowd else instance_segmentation(mask),
        "area": float(mask.sum()),
        "iscrowd": int(is_crowd),
        "image_id": image_id,
        "bbox": [float(left), float(top), float(columns[-1] - left + 1), float(rows[-1] - top + 1)],
        "category_id": digit + 1,
    }
