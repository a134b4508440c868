"""One shard, on a disk or in a store: read by ranges, each of them tried again where that may help."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from unveil_pretrain.data.retrying import ReadPolicy, with_retries
from unveil_pretrain.data.samples import sample_id_of
from unveil_pretrain.data.stores import Stamp, Store

__all__ = ["ShardSource"]

# The headers of a tar lie between its files. Where files are smaller than a block, which images are, reading on takes
# fewer and no slower requests than leaping to each header; larger files, which videos are, are leapt over.
_REMOTE_BLOCK: Final = 8 * 2**20
_LOCAL_BLOCK: Final = 2**16
_HASH_BLOCK: Final = 8 * 2**20


@dataclass(frozen=True, slots=True)
class ShardSource:
    """One shard as it was when it was found."""

    url: str
    """The name a user knows it by."""
    path: str
    """Within its store."""
    stamp: Stamp
    store: Store
    policy: ReadPolicy

    def open(self) -> IO[bytes]:
        """The shard as a seekable binary file; reading raises as `read_range`."""
        block = _LOCAL_BLOCK if self.store.is_local else _REMOTE_BLOCK
        return io.BufferedReader(_Ranges(self), min(block, max(self.stamp.size, 1)))

    def blocks(self) -> Iterator[bytes]:
        """All bytes of the shard, a few at a time; raises as `read_range`."""
        for start in range(0, self.stamp.size, _HASH_BLOCK):
            yield self.read_range(start, min(start + _HASH_BLOCK, self.stamp.size))

    def read_range(self, start: int, end: int, *, what: str = "", key: int | None = None) -> bytes:
        """Bytes [start, end).

        Args:
            start: First byte.
            end: Behind the last byte.
            what: What lies there, for messages; the shard's name without it.
            key: A number of what lies there, which spreads the waits between tries.

        Raises:
            SourceError: the store does not answer, or denies access.
            DataError: the shard is gone, has changed, or is shorter than its store says.
        """
        if end <= start:
            return b""
        return with_retries(
            lambda: self.store.read_range(self.path, start, end, self.stamp),
            self.policy,
            what=what or self.url,
            key=sample_id_of(f"{self.url}:{start}") if key is None else key,
        )


class _Ranges(io.RawIOBase):
    """A shard as a raw file."""

    def __init__(self, source: ShardSource) -> None:
        super().__init__()
        self._source, self._place = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._source.stamp.size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        end = min(self._place + len(buffer), self._source.stamp.size)
        data = self._source.read_range(self._place, end)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
