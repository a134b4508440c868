"""Counts of the data under a data root, and what is wrong with it; images are counted, not decoded."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unveil_evalharness.errors import DataError, one_line
from unveil_evalharness.findings import Finding

__all__ = ["check_data"]

_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_NUM_NAMED = 3


def check_data(data_root: Path, tasks: Sequence[str]) -> list[Finding]:
    """One or more findings per task; tasks without a known layout are left to their own `data_hash`."""
    if not data_root.is_dir():
        return [Finding(subject="data", state="problem", detail=f"--data-root {data_root} is not a folder")]
    findings: list[Finding] = []
    for task in tasks:
        match task:
            case "imagenet_ft":
                findings += _image_folder(data_root / "imagenet")
            case "coco_det":
                findings += _coco(data_root / "coco")
            case "ade20k_seg":
                findings += _ade20k(data_root / "ade20k")
            case "zs_retrieval":
                findings.append(_captions(data_root))
            case _:
                continue
    return findings


def _problem(subject: str, detail: str) -> Finding:
    return Finding(subject=subject, state="problem", detail=detail)


def _ok(subject: str, detail: str) -> Finding:
    return Finding(subject=subject, state="ok", detail=detail)


def _image_folder(root: Path) -> Iterator[Finding]:
    classes: dict[str, set[str]] = {}
    for split in ("train", "val"):
        folder = root / split
        subject = f"imagenet/{split}"
        if not folder.is_dir():
            yield _problem(subject, f"{folder} is missing; imagenet_ft reads {split}/<class>/<image>")
            continue
        counts = {
            entry.name: sum(1 for file in entry.iterdir() if file.suffix.lower() in _IMAGE_SUFFIXES)
            for entry in sorted(folder.iterdir())
            if entry.is_dir()
        }
        classes[split] = set(counts)
        empty = [name for name, count in counts.items() if count == 0]
        if not counts or empty:
            yield _problem(subject, f"{folder}: no images in {_some(empty) if empty else 'it'}")
        else:
            yield _ok(subject, f"{sum(counts.values())} images in {len(counts)} classes")
    if len(classes) == 2 and classes["train"] != classes["val"]:
        yield _problem("imagenet", f"classes differ between train and val: {_some(classes['train'] ^ classes['val'])}")


def _coco(root: Path) -> Iterator[Finding]:
    for split in ("train2017", "val2017"):
        file = root / "annotations" / f"instances_{split}.json"
        subject = f"coco/{split}"
        if not file.is_file():
            yield _problem(subject, f"{file} is missing; coco_det reads it and {split}/")
            continue
        try:
            content = json.loads(file.read_bytes())
            names = {image["id"]: image["file_name"] for image in content["images"]}
            used = {annotation["image_id"] for annotation in content["annotations"]}
            counts = (
                f"{len(names)} images, {len(content['annotations'])} objects, {len(content['categories'])} categories"
            )
        except (ValueError, KeyError, TypeError) as error:
            yield _problem(subject, f"{file} is not a COCO instance file: {type(error).__name__}: {one_line(error)}")
            continue
        yield _linked(subject, file, root / split, names, used, counts)


def _linked(subject: str, file: Path, folder: Path, names: dict[Any, str], used: set[Any], counts: str) -> Finding:
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    missing = sorted(name for name in names.values() if name not in present)
    if missing:
        return _problem(subject, f"{file} names {len(missing)} images that are not in {folder}: {_some(missing)}")
    unknown = sorted(str(identity) for identity in used - names.keys())
    if unknown:
        return _problem(subject, f"{file}: objects on image ids that are not in 'images': {_some(unknown)}")
    return _ok(subject, counts)


def _ade20k(root: Path) -> Iterator[Finding]:
    lists = sorted(root.glob("objectInfo*.txt"))
    if len(lists) == 1:
        num_classes = len([line for line in lists[0].read_text(encoding="utf-8").splitlines() if line.strip()]) - 1
        yield _ok("ade20k", f"{num_classes} classes in {lists[0].name}")
    else:
        yield _problem("ade20k", f"{root} holds {len(lists)} objectInfo*.txt; ade20k_seg reads the classes from one")
    for split in ("training", "validation"):
        subject = f"ade20k/{split}"
        stems = [
            {file.stem for file in folder.iterdir()} if folder.is_dir() else set()
            for folder in (root / "images" / split, root / "annotations" / split)
        ]
        if not stems[0]:
            yield _problem(subject, f"no images in {root / 'images' / split}")
        elif stems[0] != stems[1]:
            yield _problem(subject, f"image without annotation, or the reverse: {_some(stems[0] ^ stems[1])}")
        else:
            yield _ok(subject, f"{len(stems[0])} images with annotations")


def _captions(data_root: Path) -> Finding:
    from unveil_evalharness.tasks.zs_retrieval.data import captioned_images

    num_images = num_captions = 0
    try:
        for image in captioned_images(data_root, limit=None):
            num_images += 1
            num_captions += len(image.captions)
    except DataError as error:
        return _problem("captions", str(error))
    return _ok("captions", f"{num_captions} captions of {num_images} images")


def _some(names: Sequence[str] | set[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - _NUM_NAMED
    return ", ".join(ordered[:_NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")
