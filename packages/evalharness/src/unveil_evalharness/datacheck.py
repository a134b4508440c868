"""Counts, identity and hashes of the data under a data root, and what is wrong with it; images are not decoded."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from unveil_backbones.limits import parse_json
from unveil_backbones.places import is_folder

from unveil_evalharness.errors import DataError, one_line
from unveil_evalharness.findings import Finding
from unveil_evalharness.identity import ade20k_title, coco_title, imagenet_title
from unveil_evalharness.task import Task

__all__ = ["check_data", "hash_data"]

_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_NUM_NAMED = 3
_IMAGENET = ("imagenet_ft", "linear_probe", "knn")
_CAPTIONS: Mapping[str, Literal["any", "coco", "flickr30k"]] = {
    "zs_retrieval": "any",
    "zs_retrieval_coco": "coco",
    "zs_retrieval_flickr30k": "flickr30k",
}
_LAYOUTS = (*_IMAGENET, *_CAPTIONS, "coco_det", "ade20k_seg", "val_loss")


def check_data(data_root: Path, tasks: Sequence[str]) -> list[Finding]:
    """One or more findings per data set; tasks without a known layout are left to `hash_data`."""
    if not is_folder(data_root):
        return [Finding(subject="data", state="problem", detail=f"--data-root {data_root} is not a folder")]
    findings: list[Finding] = []
    if any(task in _IMAGENET for task in tasks):
        findings += _image_folder(data_root / "imagenet")
    for task in tasks:
        match task:
            case "coco_det":
                findings += _coco(data_root / "coco")
            case "ade20k_seg":
                findings += _ade20k(data_root / "ade20k")
            case "val_loss":
                findings.append(_val_loss(data_root))
            case _ if task in _CAPTIONS:
                findings.append(_captions(data_root, task))
            case _:
                continue
    return findings


def hash_data(data_root: Path, tasks: Sequence[Task]) -> Iterator[Finding]:
    """The hash of each task's data, as in its result rows; a problem where a task of no known layout has none.

    What is wrong with data of a known layout `check_data` says in more detail.
    """
    if not is_folder(data_root):
        return
    for task in tasks:
        subject = f"{task.name} data"
        try:
            yield _ok(subject, f"hash {task.data_hash(data_root)}")
        except (DataError, OSError) as error:
            if task.name not in _LAYOUTS:
                yield _problem(subject, one_line(error))


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
            shards = list(root.glob(f"{split}-*.tar"))
            missing = f"{folder} is missing; imagenet_ft reads {split}/<class>/<image> or {split}-*.tar"
            yield _ok(subject, f"{len(shards)} shards") if shards else _problem(subject, missing)
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
            size = f"{sum(counts.values())} images in {len(counts)} classes"
            yield _ok(subject, _titled(imagenet_title(split, counts), size))
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
            content = parse_json(file.read_bytes())
            names = {image["id"]: image["file_name"] for image in content["images"]}
            used = {annotation["image_id"] for annotation in content["annotations"]}
            num_categories = len(content["categories"])
            size = f"{len(names)} images, {len(content['annotations'])} objects, {num_categories} categories"
        except (ValueError, KeyError, TypeError) as error:
            yield _problem(subject, f"{file} is not a COCO instance file: {type(error).__name__}: {one_line(error)}")
            continue
        title = coco_title(split, num_images=len(names), num_categories=num_categories)
        yield _linked(subject, file, root / split, names, used, _titled(title, size))


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
    lists, num_classes = sorted(root.glob("objectInfo*.txt")), 0
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
            title = ade20k_title(split, num_images=len(stems[0]), num_classes=num_classes)
            yield _ok(subject, _titled(title, f"{len(stems[0])} images with annotations"))


def _captions(data_root: Path, task: str) -> Finding:
    """Whether the captioned images are there, and which published test split they are, if any."""
    from unveil_evalharness.tasks.zs_retrieval.data import captioned_images, set_title

    source = _CAPTIONS[task]
    subject = "captions" if source == "any" else f"captions/{source}"
    try:
        counts = {image.key: len(image.captions) for image in captioned_images(data_root, limit=None, source=source)}
    except DataError as error:
        return _problem(subject, str(error))
    return _ok(subject, set_title(counts))


def _val_loss(data_root: Path) -> Finding:
    """Whether there are images to measure a validation loss on; image-text pairs are those of `_captions`."""
    from unveil_evalharness.tasks.val_loss.data import count_images, image_source

    try:
        source, number = image_source(data_root), count_images(data_root)
    except DataError as error:
        return _problem("val_loss", str(error))
    return _ok("val_loss", f"{number} images in {source.relative_to(data_root)}")


def _titled(title: str | None, size: str) -> str:
    """What a set is called, then how large it is."""
    return f"{title}: {size}" if title else size


def _some(names: Sequence[str] | set[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - _NUM_NAMED
    return ", ".join(ordered[:_NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "")
