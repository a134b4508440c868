"""The ADE20K SceneParsing folder: pairs of image and label map, class names, and checks of both.

::

    ade20k/images/{training,validation}/<name>.{jpg,jpeg,png}
    ade20k/annotations/{training,validation}/<name>.png     0 = unlabelled, 1 … N = class
    ade20k/objectInfo<N>.txt                                tab separated, one line per class, a column "Name"
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from unveil_evalharness.errors import DataError
from unveil_evalharness.opening import opened_image

__all__ = [
    "IGNORED",
    "MAX_CLASSES",
    "Pair",
    "class_names",
    "count_pixels",
    "data_hash",
    "read_labels",
    "read_pairs",
    "reduce_zero",
]

IGNORED = 255
"""Value of unlabelled pixels once classes are counted from 0."""
MAX_CLASSES = 254
"""Label maps have 8 bits: 0 is unlabelled, 255 is left free."""

_SPLITS = {"train": "training", "val": "validation"}
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_LABEL_MODES = ("L", "P", "1", "I", "I;16")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One image and its label map."""

    name: str
    """File name of the image."""
    image: Path
    labels: Path


def read_pairs(data_root: Path, split: str) -> list[Pair]:
    """All pairs of a split by name.

    Args:
        data_root: the data root.
        split: ``"train"`` or ``"val"``.

    Raises:
        DataError: a folder is missing or empty, or a file has no partner.
    """
    images_dir = data_root / "ade20k" / "images" / _SPLITS[split]
    labels_dir = data_root / "ade20k" / "annotations" / _SPLITS[split]
    for folder in (images_dir, labels_dir):
        if not folder.is_dir():
            raise DataError(
                f"no folder {folder}; ade20k_seg reads ade20k/images/{{training,validation}}/*.jpg (or png) and "
                "ade20k/annotations/{training,validation}/*.png"
            )
    images = [path for path in sorted(images_dir.iterdir()) if path.suffix.lower() in _IMAGE_SUFFIXES]
    if not images:
        raise DataError(f"{images_dir} holds no image ({', '.join(_IMAGE_SUFFIXES)})")
    repeated = [stem for stem, count in Counter(path.stem for path in images).items() if count > 1]
    if repeated:
        raise DataError(f"{images_dir}: {len(repeated)} names occur with two suffixes, first {repeated[0]!r}; keep one")
    labels = {path.stem: path for path in labels_dir.iterdir() if path.suffix.lower() == ".png"}
    _refuse_unpaired((path.stem for path in images if path.stem not in labels), len(images), images_dir, labels_dir)
    _refuse_unpaired(sorted(labels.keys() - {path.stem for path in images}), len(labels), labels_dir, images_dir)
    return [Pair(name=path.name, image=path, labels=labels[path.stem]) for path in images]


def _refuse_unpaired(stems: Iterable[str], total: int, here: Path, there: Path) -> None:
    missing = list(stems)
    if missing:
        raise DataError(
            f"{len(missing)} of {total} files in {here} have no partner in {there}, first {missing[0]!r}; add the "
            "partners or remove the files"
        )


def class_names(data_root: Path, pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Class names from ``objectInfo<N>.txt``; without that file ``class 1`` … up to the largest label of `pairs`.

    Raises:
        DataError: the file is not one line per class, there are two such files, or no class is labelled anywhere.
    """
    files = sorted((data_root / "ade20k").glob("objectInfo*.txt"))
    if len(files) > 1:
        raise DataError(
            f"{data_root / 'ade20k'} holds {', '.join(file.name for file in files)}; keep the one that applies"
        )
    if files:
        return _names_of(files[0])
    largest = max((int(labels.max(initial=0)) for labels in map(read_labels, pairs)), default=0)
    if largest == 0:
        raise DataError(f"no pixel of the {len(pairs)} label maps in {data_root / 'ade20k'} is labelled")
    _check_number(largest, data_root / "ade20k")
    return tuple(f"class {number}" for number in range(1, largest + 1))


def _names_of(file: Path) -> tuple[str, ...]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: {error}; restore it") from error
    lines = [line.split("\t") for line in text.splitlines() if line.strip()]
    if not lines or "Name" not in lines[0]:
        raise DataError(f"{file} has no header with a column 'Name'; it must be tab separated, one line per class")
    column = lines[0].index("Name")
    names = [fields[column].strip() if len(fields) > column else "" for fields in lines[1:]]
    numbers = [fields[0].strip() for fields in lines[1:]]
    if not names or numbers != [str(number) for number in range(1, len(names) + 1)]:
        raise DataError(f"{file} must list classes 1, 2, … in this order, one per line; got {numbers[:5]} …")
    _check_number(len(names), file)
    return tuple(name or f"class {number}" for number, name in enumerate(names, start=1))


def _check_number(classes: int, where: Path) -> None:
    if classes > MAX_CLASSES:
        raise DataError(f"{where} has {classes} classes; 8-bit label maps allow {MAX_CLASSES}")


def read_labels(pair: Pair) -> UInt8[np.ndarray, "h w"]:
    """The label map as stored: 0 unlabelled, 1 … N classes.

    Raises:
        DataError: the file is damaged, in colour, or holds values above 255.
    """
    try:
        with opened_image(pair.labels) as image:
            if image.mode not in _LABEL_MODES:
                raise DataError(
                    f"{pair.labels} is a {image.mode} image; a label map has one channel with the class numbers"
                )
            values = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot decode the label map {pair.labels}: {error}; replace it") from error
    if values.max(initial=0) > IGNORED:
        raise DataError(f"{pair.labels} holds the value {values.max()}; classes are 1 … {MAX_CLASSES}")
    return values.astype(np.uint8)


def reduce_zero(labels: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Stored labels as classes from 0: 0 and 255 become `IGNORED`, 1 … N become 0 … N - 1 (mmseg's reduce_zero_label).

    Args:
        labels: a label map as `read_labels` returns it.
    """
    return np.where((labels == 0) | (labels == IGNORED), IGNORED, labels - (labels > 0)).astype(np.uint8)


def count_pixels(pairs: Sequence[Pair], num_classes: int) -> Int[np.ndarray, "n classes"]:
    """Pixels per class of each label map; on the way every map is checked, also against its image's size.

    Raises:
        DataError: a label above `num_classes` (255 counts as unlabelled), or a map of another size than its image.
    """
    counts = np.zeros((len(pairs), num_classes), dtype=np.int64)
    for row, pair in enumerate(pairs):
        labels = read_labels(pair)
        histogram = np.bincount(labels.ravel(), minlength=IGNORED + 1)
        above = np.flatnonzero(histogram[num_classes + 1 : IGNORED])
        if len(above):
            raise DataError(
                f"{pair.labels} holds label {num_classes + 1 + above[0]}, but there are {num_classes} classes; 0 and "
                f"{IGNORED} mean unlabelled"
            )
        size = _image_size(pair)
        if size != labels.shape:
            raise DataError(
                f"{pair.image} has {size[1]} x {size[0]} pixels, its label map {pair.labels} has "
                f"{labels.shape[1]} x {labels.shape[0]}; they must be equal"
            )
        counts[row] = histogram[1 : num_classes + 1]
    return counts


def _image_size(pair: Pair) -> tuple[int, int]:
    try:
        with opened_image(pair.image) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"cannot decode the image {pair.image}: {error}; replace it or leave it out") from error


def data_hash(data_root: Path) -> str:
    """16 hex digits over class list, names and sizes of all files, and the contents of the validation label maps.

    Raises:
        DataError: see `read_pairs`.
    """
    digest = hashlib.sha256()
    for file in sorted((data_root / "ade20k").glob("objectInfo*.txt")):
        digest.update(file.read_bytes())
    for split in _SPLITS:
        for pair in read_pairs(data_root, split):
            sizes = pair.image.stat().st_size, pair.labels.stat().st_size
            digest.update(f"{split}\0{pair.name}\0{sizes[0]}\0{sizes[1]}\0".encode())
            if split == "val":
                digest.update(pair.labels.read_bytes())
    return digest.hexdigest()[:16]
