"""An image folder as a source of samples: class sub-folders or one flat folder, on disk or inside a zip file.

The key of `n01440764/a.b.JPEG` is `n01440764/a_b`: the path without its suffix, other dots of the name replaced, so
that webdataset, too, takes it for one sample. The class is the first sub-folder.
"""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

import numpy as np
from unveil_backbones.places import is_there

from unveil_pretrain.data.deadline import Deadline
from unveil_pretrain.data.images import IMAGE_EXTENSIONS
from unveil_pretrain.data.retrying import ReadPolicy, with_retries
from unveil_pretrain.data.samples import hash_of_files, sample_id_of, seeded_choice
from unveil_pretrain.errors import DataError

__all__ = ["FolderDataset", "key_of_path"]

# A deflated member may be a thousand times what the archive holds of it; no encoded image is as large as this.
_MAX_INFLATED: Final = 2**30
_POLICY: Final = ReadPolicy()
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field


def key_of_path(path: str) -> str:
    """The key of an image by its path within the folder, written with slashes."""
    pure = PurePosixPath(path)
    return (pure.parent / pure.stem.replace(".", "_")).as_posix()


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    """Within the folder, with slashes."""
    size: int


class _Store(Protocol):
    name: str

    def files(self) -> Iterator[_File]: ...

    def read(self, path: str) -> bytes: ...


class FolderDataset:
    """Images below a folder, or in a zip file, in the order of their paths; attributes as `Samples` says.

    Attributes:
        ignored: Paths within the folder that are no images, by their names; hidden files are not among them.
    """

    def __init__(
        self, place: str, *, extensions: Sequence[str] = IMAGE_EXTENSIONS, policy: ReadPolicy = _POLICY
    ) -> None:
        """List the images, or the videos.

        Args:
            place: A folder or a .zip file on this machine.
            extensions: Which files are samples, lower case.
            policy: How long and how often to try to read.

        Raises:
            DataError: it is not there or holds no image, or two images would have the same key.
        """
        path = Path(place)
        if not is_there(path):
            raise DataError(f"{place!r} does not exist; name a folder of images, a .zip of one, or webdataset shards")
        self._policy, self._deadline = policy, Deadline()
        self._store: _Store = _Zip(path) if path.is_file() else _Disk(path)
        found = sorted(self._store.files(), key=lambda file: file.path)
        self.ignored: tuple[str, ...] = tuple(file.path for file in found if _extension(file.path) not in extensions)
        images = [file for file in found if _extension(file.path) in extensions]
        if not images:
            what = "image" if tuple(extensions) == IMAGE_EXTENSIONS else "video"
            raise DataError(f"{place!r} holds no {what} ({', '.join(extensions)}); name a folder of {what}s or shards")
        self._fill(images)
        _check_keys(self.keys, images)

    def _fill(self, images: Sequence[_File]) -> None:
        self._images = tuple(images)
        self.keys: tuple[str, ...] = tuple(key_of_path(file.path) for file in images)
        self.sample_ids: np.ndarray = np.array([sample_id_of(key) for key in self.keys], dtype=np.int64)
        self.content_hash: str = hash_of_files(
            (key, [(_extension(file.path), file.size)]) for key, file in zip(self.keys, images, strict=True)
        )

    def __len__(self) -> int:
        return len(self._images)

    def extensions(self, index: int) -> tuple[str, ...]:
        """The one extension of an image."""
        return (_extension(self._images[index].path),)

    def where(self, index: int) -> str:
        """Folder and path of one image, for messages."""
        return f"{self._store.name}: {self._images[index].path}"

    def read(self, index: int) -> dict[str, bytes]:
        """The image's bytes, by its extension.

        Raises:
            DataError: it can no longer be read; SourceError where the disk does not answer.
        """
        path = self._images[index].path
        data = with_retries(
            lambda: self._deadline.call(lambda: self._store.read(path), self._policy.timeout),
            self._policy,
            what=self.where(index),
            key=int(self.sample_ids[index]),
            kind="file",
        )
        return {_extension(path): data}

    def label(self, index: int) -> str | None:
        """The first sub-folder on the way to the image; None in a flat folder."""
        first, separator, _ = self._images[index].path.partition("/")
        return first if separator else None

    def select(self, indices: Sequence[int]) -> "FolderDataset":
        """These samples, in this order."""
        chosen = FolderDataset.__new__(FolderDataset)
        chosen._store, chosen.ignored = self._store, self.ignored
        chosen._policy, chosen._deadline = self._policy, self._deadline
        chosen._fill([self._images[index] for index in indices])
        return chosen

    def subset(self, num_unique: int, *, seed: int) -> "FolderDataset":
        """The `num_unique` samples that come first in a seeded ranking; ConfigError if there are not so many."""
        return self.select(seeded_choice(self.sample_ids, num_unique, seed=seed))


class _Disk:
    """Files below a folder; links are followed, hidden files and folders left out."""

    def __init__(self, root: Path) -> None:
        self.name, self._root = str(root), root

    def files(self) -> Iterator[_File]:
        seen: set[str] = set()
        for folder, inside, names in os.walk(self._root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link back to where we have been
                inside.clear()
                continue
            seen.add(real)
            inside[:] = sorted(name for name in inside if not name.startswith("."))
            for name in names:
                path = Path(folder, name)
                if not name.startswith(".") and stat.S_ISREG((status := _status(path)).st_mode):
                    yield _File(path.relative_to(self._root).as_posix(), status.st_size)

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be looked at ({error.strerror or error}); restore it or remove it") from error


class _Zip:
    """Members of a zip file, stored or deflated, each read by its own range."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        except (OSError, zipfile.BadZipFile, ValueError, IndexError, NotImplementedError, struct.error) as error:
            raise DataError(f"{path}: not a readable zip file ({error}); copy it again, or name a folder") from error

    def files(self) -> Iterator[_File]:
        for name, info in self._members.items():
            if not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/")):
                yield _File(name, info.file_size)

    def read(self, path: str) -> bytes:
        info = self._members[path]
        with self._path.open("rb", buffering=0) as stream:
            stream.seek(info.header_offset)
            signature, name_length, extra_length = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
            if signature != b"PK\x03\x04":
                raise OSError("the zip file changed since it was listed")
            stream.seek(name_length + extra_length, os.SEEK_CUR)
            data = stream.read(info.compress_size)
        if info.compress_type == zipfile.ZIP_DEFLATED:
            data = _inflated(data, info.file_size)
        elif info.compress_type != zipfile.ZIP_STORED:
            raise OSError(f"compression method {info.compress_type}; store or deflate instead")
        if zlib.crc32(data) != info.CRC:
            raise OSError("its checksum is wrong")
        return data


def _inflated(data: bytes, size: int) -> bytes:
    """Deflated bytes as they were, if they are as many as the archive says and not more than a file may have."""
    if size > _MAX_INFLATED:
        raise OSError(f"it would become {size} bytes, at most {_MAX_INFLATED} are unpacked; store it without deflating")
    inflating = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    found = inflating.decompress(data, size + 1)
    if len(found) != size:
        raise OSError(f"it does not become the {size} bytes that the archive states")
    return found


def _extension(path: str) -> str:
    return PurePosixPath(path).suffix.lower().removeprefix(".")


def _check_keys(keys: Sequence[str], images: Sequence[_File]) -> None:
    seen: dict[str, str] = {}
    for key, file in zip(keys, images, strict=True):
        if key in seen:
            raise DataError(
                f"{seen[key]} and {file.path} would both have the key {key!r}; rename one of them, since masks, crops "
                "and lists go by keys"
            )
        seen[key] = file.path
