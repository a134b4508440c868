"""Reads labelled images: folders ``imagenet/{train,val}/<class>/<image>`` or shards ``imagenet/{train,val}-*.tar``.

The sorted folder names are the classes; for shards see `shards`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from unveil_evalharness.engine.stream import Purpose, derive_seed
from unveil_evalharness.errors import DataError
from unveil_evalharness.opening import opened_image
from unveil_evalharness.tasks.imagenet_ft.shards import IMAGE_SUFFIXES, Member, index_shards, name_classes

__all__ = [
    "FolderImages",
    "ImageFolder",
    "balanced",
    "folder_hash",
    "image_name",
    "open_image",
    "read_folders",
    "reduced",
]

_SUBSET_SEED = 0
_LAYOUT = "expected imagenet/{train,val}/<class>/<image>.jpg or imagenet/{train,val}-*.tar"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFolder:
    """The images of one split."""

    classes: tuple[str, ...]
    """Their names in order; the label is the position."""
    images: tuple[tuple[Path | Member, int], ...]
    """File, or place in a shard, and label; folders are ordered by class and name, shards as they are."""

    @property
    def labels(self) -> np.ndarray:
        """int64 [n]."""
        return np.array([label for _, label in self.images], dtype=np.int64)


def _split(folder: Path) -> ImageFolder:
    shards = sorted(folder.parent.glob(f"{folder.name}-*.tar"))
    if shards and folder.is_dir():
        raise DataError(f"both {folder} and {shards[0]} are there; keep the folder or the shards")
    if shards:
        found = index_shards(shards)
        classes, meaning = name_classes([text for _, text in found], folder.parent / "classes.txt")
        position = {name: number for number, name in enumerate(classes)}
        return ImageFolder(classes=classes, images=tuple((member, position[meaning[text]]) for member, text in found))
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; {_LAYOUT}; check --data-root")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise DataError(f"{folder} holds no class folders; {_LAYOUT}; check --data-root")
    images: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        found = sorted(
            path
            for path in (folder / name).iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        )
        if not found:
            raise DataError(
                f"class folder {folder / name} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); "
                "add images or remove the folder from train and val"
            )
        images.extend((path, label) for path in found)
    return ImageFolder(classes=tuple(classes), images=tuple(images))


def read_folders(data_root: Path) -> tuple[ImageFolder, ImageFolder]:
    """The training and the validation split under ``data_root/imagenet``.

    Raises:
        DataError: a split or a class is missing or empty, or the two splits have different classes.
    """
    train, val = (_split(data_root / "imagenet" / name) for name in ("train", "val"))
    only_train, only_val = sorted(set(train.classes) - set(val.classes)), sorted(set(val.classes) - set(train.classes))
    if only_train or only_val:
        raise DataError(
            f"{data_root / 'imagenet'}: train and val must have the same class folders; "
            f"only in train: {only_train[:5]}, only in val: {only_val[:5]}"
        )
    return train, val


def folder_hash(data_root: Path) -> str:
    """16 hex digits over names and sizes in bytes of all images of both splits, or of all shards.

    Raises:
        DataError: see `read_folders`; of shards, only that there are some for both splits.
    """
    digest = hashlib.sha256()
    for path in _hashed_files(data_root):
        digest.update(f"{path.relative_to(data_root).as_posix()}\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def _hashed_files(data_root: Path) -> list[Path]:
    folder = data_root / "imagenet"
    shards = [sorted(folder.glob(f"{split}-*.tar")) for split in ("train", "val")]
    if all(shards):
        # Reading the headers of a hundred gigabytes takes a minute, so a run does it once, when it reads the images.
        names = folder / "classes.txt"
        return [*shards[0], *shards[1], *([names] if names.is_file() else [])]
    splits = read_folders(data_root)
    return [image if isinstance(image, Path) else image.shard for split in splits for image, _ in split.images]


def balanced(folder: ImageFolder, limit: int | None) -> ImageFolder:
    """At most `limit` images, class by class in turn, always the same ones.

    Which images of a class come first is a fixed pseudo-random order, the same for every checkpoint and seed; a
    larger limit contains a smaller one.

    Args:
        folder: all images.
        limit: how many to keep; None keeps all.
    """
    if limit is None or limit >= len(folder.images):
        return folder
    by_class: list[list[int]] = [[] for _ in folder.classes]
    for index, (_, label) in enumerate(folder.images):
        by_class[label].append(index)
    turns: list[tuple[int, int, int]] = []
    for label, indices in enumerate(by_class):
        order = np.random.default_rng(derive_seed(_SUBSET_SEED, Purpose.SUBSET, label)).permutation(len(indices))
        turns.extend((turn, label, indices[position]) for turn, position in enumerate(order.tolist()))
    chosen = sorted(index for _, _, index in sorted(turns)[:limit])
    return ImageFolder(classes=folder.classes, images=tuple(folder.images[index] for index in chosen))


def image_name(image: Path | Member, data_root: Path) -> str:
    """What an image is called in per-sample outcomes: its path under the data root, in a shard with its name there."""
    if isinstance(image, Path):
        return image.relative_to(data_root).as_posix()
    return f"{image.shard.relative_to(data_root).as_posix()}/{image.name}"


def open_image(source: Path | Member) -> Image.Image:
    """Decodes one image to RGB; grey, palette and transparent images are converted, transparency is dropped.

    Raises:
        DataError: the file is not an image or is cut short; names it.
    """
    try:
        with opened_image(source if isinstance(source, Path) else source.read()) as image:
            # Pillow warns when a palette with transparency is converted to RGB in one step.
            return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        name = source if isinstance(source, Path) else f"{source.shard}/{source.name}"
        raise DataError(f"cannot decode {name} ({error}); replace the file or remove it from the data set") from error


class FolderImages(Dataset[dict[str, Any]]):
    """A map-style dataset over an `ImageFolder`: ``{"inputs": tensor [3, h, w], "targets": int, "indices": int}``.

    Args:
        folder: what to read.
        transform: PIL image to tensor.
        kept_side: keep decoded images in memory, reduced so that the shorter side is at most this; None reads the
            file every time.
    """

    def __init__(self, folder: ImageFolder, transform: Callable[[Image.Image], Any], *, kept_side: int | None) -> None:
        self.folder = folder
        self.transform = transform
        self.kept_side = kept_side
        self.metainfo = {"classes": folder.classes}
        self._kept: dict[int, Image.Image] = {}

    def with_transform(self, transform: Callable[[Image.Image], Any]) -> "FolderImages":
        """The same images through another transform; images kept in memory are shared."""
        view = FolderImages(self.folder, transform, kept_side=self.kept_side)
        view._kept = self._kept
        return view

    def __len__(self) -> int:
        return len(self.folder.images)

    def _image(self, index: int) -> Image.Image:
        if self.kept_side is None:
            return open_image(self.folder.images[index][0])
        if index not in self._kept:
            self._kept[index] = reduced(open_image(self.folder.images[index][0]), self.kept_side)
        return self._kept[index]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One transformed image with its label and its position in the folder."""
        return {
            "inputs": self.transform(self._image(index)),
            "targets": self.folder.images[index][1],
            "indices": index,
        }


def reduced(image: Image.Image, side: int) -> Image.Image:
    """The image with its shorter side at most `side`, proportions kept."""
    shorter = min(image.size)
    if shorter <= side:
        return image
    width, height = (max(round(length * side / shorter), 1) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
