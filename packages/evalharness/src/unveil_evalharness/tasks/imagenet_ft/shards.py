"""Images inside tar shards as webdataset writes them: ``<key>.jpg`` beside ``<key>.cls``, read in any order.

Training draws images in an order of its own, so the shards are not streamed: their headers are read once, and each
image is then read from its place in the file.
"""

import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unveil_evalharness.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "Member", "index_shards", "name_classes"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_LAYOUT = "shards hold <key>.jpg and <key>.cls (the class as a number or a name)"


@dataclass(frozen=True, slots=True)
class Member:
    """One image in a shard."""

    shard: Path
    name: str
    """Its name in the shard."""
    offset: int
    """Where its bytes begin."""
    size: int

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            DataError: the shard is gone or has become shorter.
        """
        try:
            with self.shard.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise DataError(f"cannot read {self.shard}: {error.strerror or error}") from error
        if len(content) < self.size:
            raise DataError(f"{self.shard} ends inside {self.name}; it changed while it was read, or is damaged")
        return content


def index_shards(shards: Sequence[Path]) -> list[tuple[Member, str]]:
    """Every image of some shards with the text of its class, in the order of the shards.

    Raises:
        DataError: a file is no plain tar, is cut short, or holds an image without a class or a class without an image.
    """
    found = [pair for shard in shards for pair in _pairs(shard)]
    if not found:
        raise DataError(f"{shards[0]} and its neighbours hold no image; {_LAYOUT}")
    return found


def _pairs(shard: Path) -> Iterator[tuple[Member, str]]:
    length = shard.stat().st_size
    images: dict[str, Member] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                if not entry.isfile():
                    continue
                if entry.offset_data + entry.size > length:
                    raise DataError(f"{shard} is cut short inside {entry.name}; make or copy it again")
                key, suffix = _split_name(entry.name)
                if suffix in IMAGE_SUFFIXES:
                    images[key] = Member(shard, entry.name, entry.offset_data, entry.size)
                elif suffix == ".cls":
                    content = archive.extractfile(entry)
                    assert content is not None
                    labels[key] = content.read().decode("utf-8", "replace").strip()
    except tarfile.TarError as error:
        raise DataError(f"{shard} is not an uncompressed tar file ({error}); {_LAYOUT}") from error
    _check_end(shard, length)
    alone = sorted(images.keys() ^ labels.keys())
    if alone:
        raise DataError(f"{shard}: {len(alone)} keys have an image or a class but not both: {alone[:3]}; {_LAYOUT}")
    for key, member in images.items():
        if not labels[key]:
            raise DataError(f"{shard}: the class of {key!r} is empty; {_LAYOUT}")
        yield member, labels[key]


def _check_end(shard: Path, length: int) -> None:
    """`tarfile` takes a file that was cut between members, or whose header was damaged, for a shorter one."""
    with shard.open("rb") as file:
        file.seek(max(0, length - 2 * tarfile.BLOCKSIZE))
        if length % tarfile.BLOCKSIZE or any(file.read()):
            raise DataError(f"{shard} does not end as a tar file does; make or copy it again")


def _split_name(name: str) -> tuple[str, str]:
    """Key and suffix of a member, cut at the first dot of the file's name as webdataset does."""
    path = PurePosixPath(name)
    stem, dot, suffix = path.name.partition(".")
    return (path.parent / stem).as_posix(), (dot + suffix).lower()


def _lines_of(names_file: Path) -> list[str]:
    try:
        lines = names_file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{names_file} cannot be read: {error}; restore it or remove it") from error
    if not lines:
        raise DataError(f"{names_file} names no class; restore it or remove it")
    return lines


def name_classes(texts: Sequence[str], names_file: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The classes in order, and which of them each text means.

    Numbers are ordered as numbers and are lines of `names_file` counted from zero, where there is one; other texts
    are names themselves, ordered by alphabet.

    Raises:
        DataError: a number is beyond the last line of `names_file`, or that cannot be read.
    """
    distinct = sorted(set(texts))
    if not all(text.isascii() and text.isdigit() for text in distinct):
        return tuple(distinct), {text: text for text in distinct}
    numbers = sorted({int(text) for text in distinct})
    lines = _lines_of(names_file) if os.path.lexists(names_file) else []
    if lines and numbers[-1] >= len(lines):
        raise DataError(f"{names_file} has {len(lines)} lines, but the shards hold class {numbers[-1]}")
    spelled = {number: (lines[number].strip() or str(number)) if lines else str(number) for number in numbers}
    # Two ids may share a name (ImageNet has two cranes and two maillots); the class is the number.
    repeated = len(set(spelled.values())) < len(spelled)
    if repeated:
        spelled = {number: f"{number} {name}" for number, name in spelled.items()}
    return tuple(spelled[number] for number in numbers), {text: spelled[int(text)] for text in distinct}
