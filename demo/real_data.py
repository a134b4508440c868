"""Lay a folder of real images out as a data root, in the layouts the tools read (`make demo DATA=<dir>`).

Found by their files, not by a fixed name: an ImageFolder (`train/<class>/`, `val/<class>/`, or the zips with map files
that Swin's and SimMIM's loaders use), COCO (`annotations/instances_*2017.json`), ADE20K's layout
(`annotations/{training,validation}`) and webdataset pairs (`train-*.tar`, `val-*.tar`). Where several sets have one
layout, the one whose folder carries the benchmark's name wins, then the one with the most training files.
Nothing in the given folder is changed: its files are linked, zips are unpacked beside the links.
"""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import webdataset

__all__ = ["RealDataError", "Source", "find_sources", "lay_out"]

_IMAGES = (".jpg", ".jpeg", ".png")
_SAMPLES_PER_SHARD = 1000


class RealDataError(ValueError):
    """The folder given as DATA does not hold what the demo needs."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set found in the folder."""

    role: str
    """imagenet, coco, ade20k or captions."""
    path: Path
    num_train: int
    """Training files, by which equals are ranked."""


def _count(folder: Path, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern)) if folder.is_dir() else 0


def _imagenet_size(folder: Path) -> int:
    maps = [folder / f"{split}_map.txt" for split in ("train", "val")]
    if all(path.is_file() for path in maps) and all((folder / f"{split}.zip").is_file() for split in ("train", "val")):
        return len(maps[0].read_text().splitlines())
    if not any((folder / "val").glob("*/*")):
        return 0
    return sum(1 for path in (folder / "train").glob("*/*") if path.suffix.lower() in _IMAGES)


def _coco_size(folder: Path) -> int:
    instances = [folder / "annotations" / f"instances_{split}2017.json" for split in ("train", "val")]
    return _count(folder / "train2017", "*") if all(path.is_file() for path in instances) else 0


def _ade20k_size(folder: Path) -> int:
    parts = [folder / kind / split for kind in ("images", "annotations") for split in ("training", "validation")]
    return _count(parts[0], "*") if all(path.is_dir() for path in parts) else 0


def _captions_size(folder: Path) -> int:
    return _count(folder, "train-*.tar") if _count(folder, "val-*.tar") else 0


_LAYOUTS: tuple[tuple[str, Callable[[Path], int]], ...] = (
    ("imagenet", _imagenet_size),
    ("coco", _coco_size),
    ("ade20k", _ade20k_size),
    ("captions", _captions_size),
)


def find_sources(folder: Path) -> dict[str, Source]:
    """The best data set of each layout among the folder's sub-folders.

    Raises:
        RealDataError: The folder does not exist, or a layout is missing; says which.
    """
    if not folder.is_dir():
        raise RealDataError(f"DATA={folder} is not a folder; give one that holds the layouts of docs/tutorial.md")
    found: dict[str, Source] = {}
    for role, size in _LAYOUTS:
        sources = [
            Source(role=role, path=path, num_train=size(path)) for path in sorted(folder.iterdir()) if path.is_dir()
        ]
        usable = [source for source in sources if source.num_train]
        if usable:
            # The benchmark's own name first ("coco" before "nuclei_coco"), then a name that begins so, then size.
            found[role] = max(
                usable,
                key=lambda source: (source.path.name == role, source.path.name.startswith(role), source.num_train),
            )
    missing = [role for role, _ in _LAYOUTS if role not in found]
    if missing:
        raise RealDataError(
            f"{folder} holds no {', '.join(missing)} layout; see docs/tutorial.md, section 'Your own images'"
        )
    return found


def _unpack(source: Path, destination: Path) -> None:
    for split in ("train", "val"):
        if (source / f"{split}.zip").is_file():
            with zipfile.ZipFile(source / f"{split}.zip") as archive:
                archive.extractall(destination / split)
        else:
            (destination / split).parent.mkdir(parents=True, exist_ok=True)
            (destination / split).symlink_to((source / split).resolve())


def _labelled_images(root: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(root.glob("*/*")):
        if path.suffix.lower() in _IMAGES:
            yield f"{path.parent.name}-{path.stem}".replace(".", "_"), path


def _write_shards(images: Path, pattern: Path) -> None:
    pattern.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(pattern), maxcount=_SAMPLES_PER_SHARD, verbose=0) as writer:
        for key, path in _labelled_images(images):
            extension = "png" if path.suffix.lower() == ".png" else "jpg"
            writer.write(
                {"__key__": key, extension: path.read_bytes(), "json": json.dumps({"source": path.name}).encode()}
            )


def lay_out(folder: Path, destination: Path) -> dict[str, Source]:
    """Make `destination` a data root of the real sets in `folder`; an existing one is kept as it is.

    Returns:
        What was chosen for each layout.

    Raises:
        RealDataError: As `find_sources`.
    """
    sources = find_sources(folder)
    if destination.exists():
        return sources
    work = destination.with_name(destination.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    _unpack(sources["imagenet"].path, work / "imagenet")
    for split in ("train", "val"):
        _write_shards(work / "imagenet" / split, work / "shards" / "images" / f"{split}-%05d.tar")
    for role in ("coco", "ade20k", "captions"):
        (work / role).symlink_to(sources[role].path.resolve())
    (work / "shards" / "pairs").symlink_to(sources["captions"].path.resolve())
    work.rename(destination)
    return sources
