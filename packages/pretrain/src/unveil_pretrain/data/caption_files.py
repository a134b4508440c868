"""Captions that come in one file for a whole folder of images: COCO's JSON, or lines `image,caption` as in Flickr8k."""

import csv
from pathlib import Path, PurePosixPath
from typing import Any

from unveil_backbones.limits import parse_json

from unveil_pretrain.data.folder import key_of_path
from unveil_pretrain.errors import DataError

__all__ = ["read_caption_file"]


def read_caption_file(path: Path) -> dict[str, list[str]]:
    """Captions in stored order, by the image's file name as a key (without folders and suffix).

    Raises:
        DataError: the file is not there, or is neither of the two kinds.
    """
    try:
        pairs = _coco(path) if path.suffix == ".json" else _lines(path)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"captions {str(path)!r} cannot be read ({error!r}); give a .json with images and annotations as COCO has, "
            "or a text with the line image,caption and one such line for each caption"
        ) from error
    found: dict[str, list[str]] = {}
    for image, caption in pairs:
        if caption.strip():
            found.setdefault(key_of_path(PurePosixPath(image).name), []).append(caption.strip())
    if not found:
        raise DataError(f"captions {str(path)!r}: there are none; give another file")
    return found


def _coco(path: Path) -> list[tuple[str, str]]:
    value: Any = parse_json(path.read_text(encoding="utf-8"))
    names = {image["id"]: str(image["file_name"]) for image in value["images"]}
    return [(names[entry["image_id"]], str(entry["caption"])) for entry in value["annotations"]]


def _lines(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.reader(stream) if row]
    if not rows or rows[0][:2] != ["image", "caption"]:
        raise ValueError("the first line is not image,caption")
    return [(row[0], ",".join(row[1:])) for row in rows[1:]]
