"""Reads and checks COCO annotation files before anything is trained on them.

Every problem that would surface hours later as an index error inside a library becomes one `DataError` here: a file
that is no COCO file, annotations of unknown images or categories, images that are not there. What is used is then
written anew (`write_split`): the chosen images only, ids from 1, absent optional fields filled in.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unveil_backbones.limits import parse_json
from unveil_backbones.places import is_file

from unveil_evalharness.errors import DataError
from unveil_evalharness.opening import inside
from unveil_evalharness.tasks.coco_det.outlines import check_outlines, check_sizes
from unveil_evalharness.tasks.dense.subset import keyed_subset

__all__ = ["Split", "SplitFiles", "data_hash", "read_split", "same_categories", "write_split"]

_HASH_BLOCK = 1 << 20
_LARGEST = 1 << 53


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A checked annotation file; the records are COCO's own."""

    path: Path
    image_dir: Path
    images: Sequence[Mapping[str, Any]]
    annotations: Sequence[Mapping[str, Any]]
    categories: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFiles:
    """What mmdet's CocoDataset is given."""

    annotation_file: Path
    image_dir: Path
    num_images: int
    classes: tuple[str, ...]
    """Unique names in the order of the file's categories."""


def _paths(data_root: Path, split: str) -> tuple[Path, Path]:
    folder = data_root / "coco"
    return folder / "annotations" / f"instances_{split}2017.json", folder / f"{split}2017"


def read_split(data_root: Path, split: str) -> Split:
    """Reads ``coco/annotations/instances_<split>2017.json`` and checks it against ``coco/<split>2017``.

    Args:
        data_root: the data root.
        split: ``"train"`` or ``"val"``.

    Raises:
        DataError: the file is missing, damaged, inconsistent, or names images that are not there.
    """
    path, image_dir = _paths(data_root, split)
    content = _parse(path, image_dir)
    images, annotations, categories = (content[key] for key in ("images", "annotations", "categories"))
    _check_fields(path, "images", images, ("id", "file_name", "height", "width"))
    _check_fields(path, "annotations", annotations, ("image_id", "category_id", "bbox"))
    _check_fields(path, "categories", categories, ("id", "name"))
    image_ids = _unique_ids(path, "images", images)
    category_ids = _unique_ids(path, "categories", categories)
    for key, known, kind in (("image_id", image_ids, "images"), ("category_id", category_ids, "categories")):
        unknown = [annotation for annotation in annotations if annotation[key] not in known]
        if unknown:
            raise DataError(
                f"{path}: {len(unknown)} of {len(annotations)} annotations have a {key} that is not among its {kind}, "
                f"first {unknown[0][key]!r}; remove them or add the {kind}"
            )
    names = Counter(str(image["file_name"]) for image in images)
    repeated = [name for name, count in names.items() if count > 1]
    if repeated:
        raise DataError(
            f"{path}: {len(repeated)} images occur more than once, first {repeated[0]!r}; keep one entry each"
        )
    missing = [image["file_name"] for image in images if not is_file(inside(image_dir, image["file_name"], path))]
    if missing:
        raise DataError(
            f"{path} names {len(missing)} of {len(images)} images that are not in {image_dir}, first {missing[0]!r}; "
            "put them there or remove their entries"
        )
    check_sizes(path, images)
    check_outlines(path, images, annotations)
    return Split(path=path, image_dir=image_dir, images=images, annotations=annotations, categories=categories)


def _parse(path: Path, image_dir: Path) -> dict[str, list[Any]]:
    wanted = "coco_det reads coco/annotations/instances_{train,val}2017.json with coco/{train,val}2017/"
    if not path.is_file():
        raise DataError(f"no annotation file {path}; {wanted}")
    if not image_dir.is_dir():
        raise DataError(f"no image folder {image_dir} beside {path}; {wanted}")
    try:
        content = parse_json(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} ({path.stat().st_size} bytes) is not JSON: {error}; restore the file") from error
    lists: dict[str, list[Any]] = {}
    for key in ("images", "annotations", "categories"):
        found = content.get(key) if isinstance(content, dict) else None
        if not isinstance(found, list) or not found:
            raise DataError(
                f"{path} has no {key}; COCO instance files hold lists 'images', 'annotations', 'categories'"
            )
        lists[key] = found
    return lists


def _check_fields(path: Path, kind: str, records: Sequence[Any], fields: tuple[str, ...]) -> None:
    for number, record in enumerate(records):
        absent = fields if not isinstance(record, dict) else [field for field in fields if field not in record]
        if absent:
            raise DataError(
                f"{path}: {kind}[{number}] has no {', '.join(absent)}; every entry needs {', '.join(fields)}"
            )
        wrong = next((field for field in fields if field in _FORMS and not _FORMS[field][0](record[field])), None)
        if wrong is not None:
            raise DataError(
                f"{path}: {kind}[{number}] has the {wrong} {repr(record[wrong])[:80]}; it must be {_FORMS[wrong][1]}"
            )
        odd = next((field for field in ("area", "iscrowd") if not _is_number(record.get(field, 0))), None)
        if odd is not None:
            raise DataError(f"{path}: {kind}[{number}] has the {odd} {repr(record[odd])[:80]}; it must be a number")


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and -_LARGEST < value < _LARGEST


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and 0 < value < _LARGEST


_FORMS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "bbox": (_is_box, "four numbers x, y, width, height in pixels"),
    "height": (_is_side, "a whole number of pixels"),
    "width": (_is_side, "a whole number of pixels"),
    "file_name": (lambda value: isinstance(value, str) and value.isprintable(), "the name of a file"),
    "name": (lambda value: isinstance(value, str) and value.isprintable(), "the name of a category"),
    "image_id": (lambda value: isinstance(value, int), "a whole number"),
    "category_id": (lambda value: isinstance(value, int), "a whole number"),
}
"""What a field has to be, where anything else would stop a library in the middle of training."""


def _unique_ids(path: Path, kind: str, records: Sequence[Mapping[str, Any]]) -> set[Any]:
    wrong = next((record["id"] for record in records if not isinstance(record["id"], int)), None)
    if wrong is not None:
        raise DataError(f"{path}: {kind} have the id {wrong!r}; COCO ids are whole numbers")
    counts = Counter(record["id"] for record in records)
    repeated = [identity for identity, count in counts.items() if count > 1]
    if repeated:
        raise DataError(f"{path}: {len(repeated)} ids of {kind} occur more than once, first {repeated[0]!r}")
    return set(counts)


def same_categories(train: Split, val: Split) -> None:
    """Refuses a validation file whose categories are not those of the training file.

    Raises:
        DataError: names the first category that differs.
    """
    first, second = ({category["id"]: category["name"] for category in split.categories} for split in (train, val))
    different = [identity for identity in first | second if first.get(identity) != second.get(identity)]
    if different:
        identity = different[0]
        raise DataError(
            f"category {identity!r} is {first.get(identity)!r} in {train.path} but {second.get(identity)!r} in "
            f"{val.path}; both files must list the same categories"
        )


def write_split(
    split: Split, destination: Path, *, sizes: Sequence[int | None], with_objects: bool, log: Callable[[str], None]
) -> SplitFiles:
    """Writes the part of a split that is used, in the strict form that mmdet and pycocotools expect.

    Args:
        split: a checked split.
        destination: the file to write.
        sizes: how many images at most, see `keyed_subset`.
        with_objects: leave out images without a usable object (mmdet's ``filter_empty_gt``).
        log: told how many annotations have no usable outline and were left out.

    Raises:
        DataError: no image, no usable object, or no outlines at all are left.
    """
    usable = [annotation for annotation in split.annotations if _has_outline(annotation)]
    if not usable:
        raise DataError(
            f"{split.path}: none of {len(split.annotations)} annotations has a segmentation; Mask R-CNN learns "
            "outlines, so give polygons or run-length masks"
        )
    if len(usable) < len(split.annotations):
        log(f"coco_det: {len(split.annotations) - len(usable)} annotations of {split.path} have no outline; left out")
    populated = {annotation["image_id"] for annotation in usable if not annotation.get("iscrowd", 0)}
    images = [image for image in split.images if not with_objects or image["id"] in populated]
    images = [images[index] for index in keyed_subset([image["file_name"] for image in images], *sizes)]
    chosen = {image["id"] for image in images}
    annotations = [annotation for annotation in usable if annotation["image_id"] in chosen]
    if not annotations:
        raise DataError(f"{split.path}: the {len(images)} images in use carry no object; use more images (--limit)")
    names = Counter(category["name"] for category in split.categories)
    # pycocotools finds categories by name, so names must be unique.
    classes = tuple(
        category["name"] if names[category["name"]] == 1 else f"{category['name']} ({category['id']})"
        for category in split.categories
    )
    content = {
        "images": [dict(image) for image in images],
        # pycocotools takes id 0 for "not matched", hence ids from 1.
        "annotations": [_strict(annotation, number) for number, annotation in enumerate(annotations, start=1)],
        "categories": [
            {"id": category["id"], "name": name} for category, name in zip(split.categories, classes, strict=True)
        ],
    }
    destination.write_text(json.dumps(content), encoding="utf-8")
    return SplitFiles(annotation_file=destination, image_dir=split.image_dir, num_images=len(images), classes=classes)


def _has_outline(annotation: Mapping[str, Any]) -> bool:
    """A run-length mask, or at least one polygon of three corners; a box with an area."""
    outline = annotation.get("segmentation")
    if min(annotation["bbox"][2:]) <= 0 or not outline:
        return False
    return isinstance(outline, dict) or (isinstance(outline, list) and any(map(_is_polygon, outline)))


def _is_polygon(polygon: Any) -> bool:
    return isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0 and all(map(_is_number, polygon))


def _strict(annotation: Mapping[str, Any], number: int) -> dict[str, Any]:
    outline = annotation["segmentation"]
    return {
        "id": number,
        "image_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "bbox": annotation["bbox"],
        "area": annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3]),
        "iscrowd": int(annotation.get("iscrowd", 0)),
        "segmentation": outline
        if isinstance(outline, dict)
        else [polygon for polygon in outline if _is_polygon(polygon)],
    }


def data_hash(data_root: Path) -> str:
    """16 hex digits over both annotation files and the names and sizes of the images.

    Raises:
        DataError: see `read_split` and `same_categories`.
    """
    digest = hashlib.sha256()
    train, val = (read_split(data_root, name) for name in ("train", "val"))
    same_categories(train, val)
    for split in (train, val):
        with split.path.open("rb") as file:
            while block := file.read(_HASH_BLOCK):
                digest.update(block)
        for image in split.images:
            size = (split.image_dir / image["file_name"]).stat().st_size
            digest.update(f"{image['file_name']}\0{size}\0".encode())
    return digest.hexdigest()[:16]
