"""The members of one tar shard, grouped into samples by webdataset's rules."""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

from webdataset.tariterators import base_plus_ext

from unveil_pretrain.errors import DataError

__all__ = ["Member", "Sample", "index_shard"]

_BLOCK: Final = tarfile.BLOCKSIZE
# webdataset leaves out members whose first path component is `__like_this__`.
_META_NAME: Final = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a sample: its extension (lower case, may hold dots) and its bytes [offset, offset + size)."""

    extension: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: its key, the number of its shard and its files in tar order."""

    key: str
    shard: int
    members: tuple[Member, ...]


def index_shard(number: int, url: str, stream: IO[bytes]) -> list[Sample]:
    """Samples of one tar file; closes `stream`.

    Args:
        number: Position of the shard in the list of shards, written into every sample.
        url: The shard's name, for messages.
        stream: The shard, open for reading and seekable.

    Raises:
        DataError: the file is no tar file, is compressed, truncated or empty, or a sample holds one extension twice.
    """
    samples: list[Sample] = []
    key, members = "", list[Member]()
    with stream:
        for name, member_offset, size in _regular_files(url, stream):
            prefix, suffix = base_plus_ext(name)
            if prefix is None or suffix is None or _META_NAME.match(name):
                continue
            if members and prefix != key:
                samples.append(Sample(key, number, tuple(members)))
                members = []
            key, extension = prefix, suffix.lower()
            if any(member.extension == extension for member in members):
                raise DataError(
                    f"{url}: {key}: two files end in .{extension}; rename one sample or write the shard again"
                )
            members.append(Member(extension, member_offset, size))
    if members:
        samples.append(Sample(key, number, tuple(members)))
    if not samples:
        raise DataError(
            f"{url}: the shard holds no sample (files named <key>.<extension>); remove it or write it again"
        )
    return samples


def _regular_files(url: str, stream: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """(name, data offset, size) of every regular file; afterwards the end of the archive is checked."""
    length = stream.seek(0, 2)
    stream.seek(0)
    if length == 0:
        raise DataError(f"{url}: the file is empty (0 bytes); copy or write the shard again")
    end, last = 0, "no file"
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for info in archive:
                if info.issparse():
                    raise DataError(f"{url}: {info.name} is stored sparse; write the shard again with a plain tar")
                size = info.size if info.isreg() else 0
                end, last = info.offset_data + -(-size // _BLOCK) * _BLOCK, info.name
                if info.offset_data + size > length:
                    raise DataError(f"{url}: the shard is cut off inside {last}; copy or write it again")
                if info.isreg():
                    yield info.name, info.offset_data, size
    except tarfile.TarError as error:
        raise DataError(f"{url}: {_what_is_wrong(stream, length, last)}") from error
    # `tarfile` ends quietly at a damaged header and where a file was cut between members; an intact archive is closed
    # by zero blocks.
    stream.seek(end)
    if stream.read(_BLOCK) != bytes(_BLOCK):
        raise DataError(f"{url}: the shard is cut off or damaged after {last}; copy or write it again")


def _what_is_wrong(stream: IO[bytes], length: int, last: str) -> str:
    stream.seek(0)
    magic = stream.read(6)
    if magic.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "the shard is compressed, which rules out random access; unpack it to a plain .tar"
    if last != "no file" or length < _BLOCK:
        return f"the shard is cut off or damaged after {last}; copy or write it again"
    return "this is not a tar file; name webdataset shards"
