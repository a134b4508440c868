"""From what a user types to the list of shards: braces and `::` unions as open_clip reads them, and globs."""

import glob
from dataclasses import dataclass
from typing import IO, Any

from fsspec.core import url_to_fs
from webdataset.shardlists import expand_urls

from unveil_pretrain.errors import DataError

__all__ = ["ShardSource", "expand_shards"]


@dataclass(frozen=True, slots=True)
class ShardSource:
    """One shard: the name a user knows it by, and the file system and path that fsspec made of it."""

    url: str
    filesystem: Any
    path: str

    def open(self) -> IO[bytes]:
        """A seekable binary file; DataError when it cannot be opened."""
        try:
            return self.filesystem.open(self.path, "rb")
        except OSError as error:
            raise DataError(f"shard {self.url!r} cannot be opened ({error}); check its permissions") from error

    def read_range(self, start: int, end: int) -> bytes:
        """Bytes [start, end)."""
        return self.filesystem.cat_file(self.path, start=start, end=end)


def expand_shards(urls: str) -> list[ShardSource]:
    """The shards that `urls` names, in order.

    Args:
        urls: For example ``data/train-{00000..00003}.tar``, ``a.tar::b.tar``, ``data/*.tar`` or ``s3://bucket/{0..9}.tar``.

    Raises:
        DataError: bad syntax, nothing matches, a shard is missing, or its file system is not installed.
    """
    if not urls.strip():
        raise DataError("no shards were named; give for example 'data/train-{00000..00003}.tar'")
    try:
        expanded = expand_urls(urls)
    except (AssertionError, ValueError) as error:  # unset ${variable}, unbalanced braces
        raise DataError(
            f"{urls!r} cannot be expanded: {error}; write for example 'data/train-{{00000..00003}}.tar'"
        ) from error
    return [source for url in expanded for source in _sources(url)]


def _sources(url: str) -> list[ShardSource]:
    if url.startswith("pipe:"):
        raise DataError(
            f"{url!r} is a pipe, which has no random access; name tar files by path or fsspec URL (s3://, https://)"
        )
    try:
        filesystem, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(f"{url!r} cannot be opened: {error}") from error
    if glob.has_magic(url) and not filesystem.exists(path):
        matches = sorted(str(match) for match in filesystem.glob(path))
        if not matches:
            raise DataError(
                f"{url!r} matches no file; check the folder, or name shards, as in 'data/train-{{00000..00003}}.tar'"
            )
        return [ShardSource(url=match, filesystem=filesystem, path=match) for match in matches]
    if filesystem.isdir(path):
        raise DataError(
            f"{url!r} is a folder; name the tar files in it, as in '{url.rstrip('/')}/{{00000..00003}}.tar' or '*.tar'"
        )
    if not filesystem.exists(path):
        raise DataError(f"shard {url!r} does not exist; check the path and the range in braces")
    return [ShardSource(url=url, filesystem=filesystem, path=path)]
