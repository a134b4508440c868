"""webdataset shards with random access: an index of tar members, read once, and byte ranges after that.

Sequential readers tie the order of samples to the number of workers and shards. Here the headers of every tar are read
once, by webdataset's own rules for grouping files into samples, and each sample is then one range read. That makes the
order a pure function of the step (`order.py`) and a restart exact.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Final

import numpy as np

from unveil_pretrain.data.index_cache import cached_index, keep_index
from unveil_pretrain.data.retrying import ReadPolicy
from unveil_pretrain.data.samples import hash_of_files, sample_id_of, seeded_choice
from unveil_pretrain.data.shard_source import ShardSource
from unveil_pretrain.data.shard_urls import expand_shards
from unveil_pretrain.data.tar_index import Member, Sample, index_shard

__all__ = ["ShardDataset"]

_POLICY: Final = ReadPolicy()
# Shards of a store that are indexed at once; those of a disk are read one after the other.
_INDEXED_AT_ONCE: Final = 8


class ShardDataset:
    """Samples of one or more tar shards, in shard order.

    Attributes:
        keys: The webdataset key of each sample.
        sample_ids: int64 [n], `sample_id_of` each key; equal keys in two shards share an id (and so a mask) but not
            an index.
        shards: The shard paths or URLs after expansion.
        content_hash: 64 hex digits over keys, extensions and byte sizes in order; the same samples in other shard
            files, or under another path, give the same hash.
    """

    def __init__(self, urls: str, policy: ReadPolicy = _POLICY) -> None:
        """Expand `urls` (braces, `::` unions, globs; local or fsspec) and index every shard.

        Raises:
            DataError: no shard matches, a shard is missing, empty, compressed, truncated or not a tar file; or its
                store does not answer (SourceError).
            MissingExtraError: the package of its store is not installed.
        """
        self._index(expand_shards(urls, policy))

    @classmethod
    def of(cls, sources: Sequence[ShardSource]) -> "ShardDataset":
        """The samples of these shards, in this order; DataError as the constructor raises it."""
        made = cls.__new__(cls)
        made._index(sources)
        return made

    def _index(self, sources: Sequence[ShardSource]) -> None:
        self._sources = tuple(sources)
        self._fill([sample for samples in _indexed(self._sources) for sample in samples])

    def _fill(self, samples: Sequence[Sample]) -> None:
        self._samples = tuple(samples)
        self.keys: tuple[str, ...] = tuple(sample.key for sample in samples)
        self.sample_ids: np.ndarray = np.array([sample_id_of(key) for key in self.keys], dtype=np.int64)
        self.shards: tuple[str, ...] = tuple(source.url for source in self._sources)
        self.content_hash: str = hash_of_files(
            (sample.key, [(member.extension, member.size) for member in sample.members]) for sample in samples
        )

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[dict[str, bytes]]:
        return (self.read(index) for index in range(len(self)))

    def extensions(self, index: int) -> tuple[str, ...]:
        """File extensions of one sample, lower case, in tar order; known from the index, nothing is read."""
        return tuple(member.extension for member in self._samples[index].members)

    def where(self, index: int) -> str:
        """Shard and key of one sample, for messages."""
        sample = self._samples[index]
        return f"{self.shards[sample.shard]}: {sample.key}"

    def read(self, index: int) -> dict[str, bytes]:
        """The files of one sample, by extension.

        Raises:
            DataError: the shard disappeared or changed since it was indexed, or cannot be read.
            SourceError: its store does not answer, or denies access.
        """
        return self._read(index, self._samples[index].members)

    def label(self, index: int) -> str | None:
        """The text of the sample's .cls file; None where it has none. DataError as `read`."""
        members = [member for member in self._samples[index].members if member.extension == "cls"]
        return self._read(index, members)["cls"].decode("utf-8", "replace").strip() if members else None

    def select(self, indices: Sequence[int]) -> "ShardDataset":
        """These samples, in this order."""
        chosen = ShardDataset.__new__(ShardDataset)
        chosen._sources = self._sources
        chosen._fill([self._samples[index] for index in indices])
        return chosen

    def subset(self, num_unique: int, *, seed: int) -> "ShardDataset":
        """The `num_unique` samples that come first in a seeded ranking; a smaller subset lies inside a larger one.

        Raises:
            ConfigError: `num_unique` is not between 1 and the number of samples.
        """
        return self.select(seeded_choice(self.sample_ids, num_unique, seed=seed))

    def _read(self, index: int, members: Sequence[Member]) -> dict[str, bytes]:
        start = min(member.offset for member in members)
        end = max(member.offset + member.size for member in members)
        source = self._sources[self._samples[index].shard]
        data = source.read_range(start, end, what=self.where(index), key=int(self.sample_ids[index]))
        return {
            member.extension: data[member.offset - start : member.offset - start + member.size] for member in members
        }


def _indexed(sources: Sequence[ShardSource]) -> Iterator[list[Sample]]:
    """The samples of each shard, in order."""
    if all(source.store.is_local for source in sources):
        yield from map(_index_of, range(len(sources)), sources)
        return
    with ThreadPoolExecutor(_INDEXED_AT_ONCE, thread_name_prefix="index") as pool:
        # Each in a copy of this context, so that its retries are noted where the caller listens.
        waiting = [pool.submit(copy_context().run, _index_of, number, source) for number, source in enumerate(sources)]
        try:
            for future in waiting:
                yield future.result()
        finally:
            for future in waiting:
                future.cancel()


def _index_of(number: int, source: ShardSource) -> list[Sample]:
    samples = cached_index(number, source)
    if samples is None:
        samples = index_shard(number, source.url, source.open())
        keep_index(source, samples)
    return samples
