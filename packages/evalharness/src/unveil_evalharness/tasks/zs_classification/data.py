"""Labelled images with class names: ImageNet, the sets made to test its classifiers, or any image folder.

What a folder's images show is derived from what the data set itself carries: synset folders (ImageNet, -A, -R,
-Sketch), label numbers (-V2), or ObjectNet's own mappings.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from unveil_backbones.limits import parse_json

from unveil_evalharness.errors import DataError
from unveil_evalharness.tasks.imagenet_ft.data import ImageFolder, balanced, open_image
from unveil_evalharness.tasks.zs_classification.config import DataSet
from unveil_evalharness.tasks.zs_classification.prompts import (
    Template,
    imagenet_names,
    lines_of,
    own_templates,
)

__all__ = ["LabelledSet", "Photograph", "data_hash", "find_folder", "read_set"]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_FOLDERS: Mapping[DataSet, tuple[str, ...]] = {
    "folder": ("imagenet",),
    "imagenet_v2": ("imagenet_v2", "imagenetv2-matched-frequency-format-val"),
    "imagenet_a": ("imagenet_a", "imagenet-a"),
    "imagenet_r": ("imagenet_r", "imagenet-r"),
    "imagenet_sketch": ("imagenet_sketch", "sketch"),
    "objectnet": ("objectnet", "objectnet-1.0"),
}
"""Folders under the data root: ours, and what the published archive unpacks to."""
_NUM_CLASSES: Mapping[DataSet, int] = {
    "imagenet_v2": 1000,
    "imagenet_a": 200,
    "imagenet_r": 200,
    "imagenet_sketch": 1000,
    "objectnet": 113,
}
"""Classes of the published sets; a folder with another number of them is not the published set."""
_MAPPINGS = ("folder_to_objectnet_label.json", "objectnet_to_imagenet_1k.json")
_TEXTS = ("classnames.txt", "templates.txt", "zeroshot_classification_templates.txt")


@dataclass(frozen=True, slots=True)
class Photograph:
    """An image file whose edges are cut off."""

    path: Path
    border: int

    def decode(self) -> Image.Image:
        """The image as RGB without its border.

        Raises:
            DataError: it cannot be decoded, or is nothing but border.
        """
        image = open_image(self.path)
        box = (self.border, self.border, image.width - self.border, image.height - self.border)
        if box[0] >= box[2] or box[1] >= box[3]:
            raise DataError(f"{self.path} is {image.width} x {image.height}: nothing is left within its border")
        return image.crop(box)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledSet:
    """Images with labels, and the words for the labels."""

    title: str
    """What the set is, for logs and tables."""
    images: ImageFolder
    """`classes` are the names that are put into prompts."""
    templates: tuple[Template, ...] | None
    """The user's own, in place of the protocol's."""

    def limited(self, limit: int | None) -> "LabelledSet":
        """At most `limit` images, class by class in turn, always the same ones."""
        return LabelledSet(title=self.title, images=balanced(self.images, limit), templates=self.templates)


def find_folder(data_root: Path, data_set: DataSet) -> Path:
    """The data set's folder.

    Raises:
        DataError: it is not there; names where it may be.
    """
    found = next((data_root / name for name in _FOLDERS[data_set] if (data_root / name).is_dir()), None)
    if found is None:
        names = " or ".join(f"{name}/" for name in _FOLDERS[data_set])
        raise DataError(f"{data_set} is missing under {data_root}; it is read from {names}")
    return found


def read_set(data_root: Path, data_set: DataSet) -> LabelledSet:
    """All images of a data set with their class names.

    Raises:
        DataError: a folder is missing or empty, names no class, or the set is not the published one.
    """
    folder = find_folder(data_root, data_set)
    match data_set:
        case "folder":
            return _any_folder(folder)
        case "objectnet":
            names = _objectnet_names(folder)
            images = _labelled(folder / "images", {name: (name, names[name]) for name in sorted(names)})
        case "imagenet_v2":
            names = list(imagenet_names().values())
            images = _labelled(folder, {str(label): (f"{label:04d}", name) for label, name in enumerate(names)})
        case _:
            images = _labelled(folder, {synset: (synset, name) for synset, name in imagenet_names().items()})
    expected = _NUM_CLASSES[data_set]
    if len(images.classes) != expected:
        raise DataError(
            f"{folder} has images of {len(images.classes)} classes, {data_set} has {expected}; complete it, or "
            "evaluate another set with the task zs_classification"
        )
    return LabelledSet(
        title=f"{data_set}: {len(images.images)} images of {expected} classes", images=images, templates=None
    )


def data_hash(data_root: Path, data_set: DataSet) -> str:
    """16 hex digits over the images' names and sizes, and the contents of class names, templates and mappings.

    Raises:
        DataError: see `read_set`.
    """
    folder = find_folder(data_root, data_set)
    images = read_set(data_root, data_set).images
    digest = hashlib.sha256("\n".join(images.classes).encode())
    for path, label in images.images:
        assert isinstance(path, Path)
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0{label}\n".encode())
    for file in [*(folder / name for name in _TEXTS), *(folder / "mappings" / name for name in _MAPPINGS)]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _any_folder(folder: Path) -> LabelledSet:
    """``imagenet/val``: names from ``classnames.txt``, else from the synsets, else the folders' own."""
    root = folder / "val"
    folders = [] if not root.is_dir() else sorted(path.name for path in root.iterdir() if path.is_dir())
    if not folders:
        raise DataError(f"{root} holds no class folders; zs_classification reads imagenet/val/<class>/<image>")
    if (folder / "classnames.txt").is_file():
        names = lines_of(folder / "classnames.txt")
        if len(names) != len(folders):
            raise DataError(
                f"{folder / 'classnames.txt'} has {len(names)} names, {root} has {len(folders)} folders; "
                "give one a line, in the order of the sorted folder names"
            )
        title = "classes of classnames.txt"
    elif set(folders) <= (synsets := imagenet_names()).keys():
        names = [synsets[name] for name in folders]
        title = "ImageNet-1K" if len(folders) == len(synsets) else "ImageNet-1K in part"
    else:
        names, title = [name.replace("_", " ") for name in folders], "classes named by their folders"
    images = _labelled(root, {name: (name, words) for name, words in zip(folders, names, strict=True)})
    return LabelledSet(
        title=f"{title}: {len(images.images)} images of {len(images.classes)} classes",
        images=images,
        templates=own_templates(folder),
    )


def _labelled(root: Path, known: Mapping[str, tuple[str, str]]) -> ImageFolder:
    """The images of every folder that `known` gives a place in the order and a class name."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder")
    present = {path.name: path for path in root.iterdir() if path.is_dir() and path.name in known}
    classes, images = [], []
    for name, path in sorted(present.items(), key=lambda item: known[item[0]][0]):
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES and file.name[0] != ".")
        if not found:
            raise DataError(f"class folder {path} holds no image; add some or remove the folder")
        images += [(file, len(classes)) for file in found]
        classes.append(known[name][1])
    if not classes:
        raise DataError(f"no folder in {root} names a class, such as {next(iter(known), 'a class name')}")
    return ImageFolder(classes=tuple(classes), images=tuple(images))


def _objectnet_names(folder: Path) -> dict[str, str]:
    """ObjectNet's own words, in lower case, for those of its folders that are also among ImageNet's classes."""
    try:
        labels, of_imagenet = (dict(parse_json((folder / "mappings" / name).read_bytes())) for name in _MAPPINGS)
        names = {name: label.lower() for name, label in labels.items() if label in of_imagenet}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{folder / 'mappings'}: cannot read {' and '.join(_MAPPINGS)}: {type(error).__name__}: {error}; "
            "both come with ObjectNet"
        ) from error
    num_classes = len(set(names.values()))
    if num_classes != _NUM_CLASSES["objectnet"] or num_classes != len(names):
        raise DataError(
            f"{' and '.join(_MAPPINGS)} in {folder / 'mappings'} name {num_classes} classes for {len(names)} folders, "
            f"ObjectNet has {_NUM_CLASSES['objectnet']}; take the files that come with it"
        )
    return names
