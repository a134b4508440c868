"""Where the images of a validation loss are.

Images: ``val_loss.txt`` (a list of paths within the data root), else ``val_loss/`` (images, or shards), else
``imagenet/val``. Pairs: ``captions/val-*.tar`` as they are, else the captioned images that zs_retrieval finds (COCO,
Flickr30k), as a shard written for the occasion.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from unveil_evalharness.errors import DataError
from unveil_evalharness.opening import inside
from unveil_evalharness.tasks.zs_retrieval import data as captions

__all__ = ["count_images", "data_hash", "image_source", "pair_source"]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_LIST, _FOLDER, _IMAGENET = "val_loss.txt", "val_loss", "imagenet/val"


def image_source(data_root: Path) -> Path:
    """The list or folder of images.

    Raises:
        DataError: there is none of the places.
    """
    for name in (_LIST, _FOLDER, _IMAGENET):
        place = data_root / name
        if place.is_file() or place.is_dir():
            return place
    raise DataError(
        f"no validation images under {data_root}; make {_LIST} (a path on each line), {_FOLDER}/ or {_IMAGENET}/"
    )


def pair_source(data_root: Path, work: Path) -> str:
    """Shards of image-caption pairs, in the syntax of `pretrain`; written into `work` where there are none.

    Raises:
        DataError: there are no captioned images, or one cannot be read.
    """
    shards = sorted((data_root / "captions").glob("val-*.tar"))
    if shards:
        return "::".join(map(str, shards))
    shard = work / "pairs.tar"
    with tarfile.open(shard, "w") as archive:
        for image in captions.captioned_images(data_root, limit=None):
            key = image.key.replace("/", "_").replace(".", "_")
            files = {_suffix(image.encoded): image.encoded, "json": json.dumps({"captions": image.captions}).encode()}
            for suffix, content in files.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return str(shard)


def count_images(data_root: Path) -> int:
    """How many images the source has, those in shards included.

    Raises:
        DataError: as `image_source`, or a shard cannot be read.
    """
    source, number = image_source(data_root), 0
    for name, _ in _listed(source):
        if name.endswith(".tar"):
            number += _count_in_shard(source / name)
        number += Path(name).suffix.lower() in _SUFFIXES
    return number


def data_hash(data_root: Path) -> str:
    """16 hex digits over names and sizes of the images, and over the captions where there are some.

    Raises:
        DataError: there are neither images nor captions.
    """
    digest = hashlib.sha256()
    problems: list[DataError] = []
    try:
        for name, size in _listed(image_source(data_root)):
            digest.update(f"{name}\0{size}\0".encode())
    except DataError as error:
        problems.append(error)
    try:
        digest.update(captions.data_hash(data_root).encode())
    except DataError as error:
        problems.append(error)
    if len(problems) == 2:
        raise problems[0]
    return digest.hexdigest()[:16]


def _listed(source: Path) -> list[tuple[str, int]]:
    """Path within the source and size of every file, sorted."""
    if source.is_dir():
        files = (path for path in source.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted((path.relative_to(source).as_posix(), path.stat().st_size) for path in files)
    try:
        lines = [line.strip() for line in source.read_text(encoding="utf-8").splitlines()]
        names = [line for line in lines if line and not line.startswith("#")]
        return sorted((name, inside(source.parent, name, source).stat().st_size) for name in names)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source} cannot be read, or names a missing image: {error}; write one path a line") from error


def _count_in_shard(shard: Path) -> int:
    try:
        with tarfile.open(shard) as members:
            return sum(Path(member.name).suffix.lower() in _SUFFIXES for member in members)
    except tarfile.TarError as error:
        raise DataError(f"cannot read the shard {shard}: {error}; copy it again") from error


def _suffix(encoded: bytes) -> str:
    if encoded.startswith(b"\x89PNG"):
        return "png"
    return "webp" if encoded[8:12] == b"WEBP" else "jpg"
