"""webdataset shards with random access: an index of tar members, read once, and byte ranges after that.

Sequential readers tie the order of samples to the number of workers and shards. Here the headers of every tar are read
once, by webdataset's own rules for grouping files into samples, and each sample is then one range read. That makes the
order a pure function of the step (`order.py`) and a restart exact.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from unveil_pretrain.data.shard_urls import expand_shards
from unveil_pretrain.data.streams import SUBSET_STREAM, words
from unveil_pretrain.data.tar_index import Sample, index_shard
from unveil_pretrain.errors import ConfigError, DataError

__all__ = ["ShardDataset", "sample_id_of"]


def sample_id_of(key: str) -> int:
    """Stable id of a sample: the first 63 bits of the BLAKE2b digest of its key."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


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

    def __init__(self, urls: str) -> None:
        """Expand `urls` (braces, `::` unions, globs; local or fsspec) and index every shard.

        Raises:
            DataError: no shard matches, a shard is missing, empty, compressed, truncated or not a tar file.
        """
        self._sources = expand_shards(urls)
        self._fill(
            [
                sample
                for number, source in enumerate(self._sources)
                for sample in index_shard(number, source.url, source.open())
            ]
        )

    def _fill(self, samples: Sequence[Sample]) -> None:
        self._samples = tuple(samples)
        self.keys: tuple[str, ...] = tuple(sample.key for sample in samples)
        self.sample_ids: np.ndarray = np.array([sample_id_of(key) for key in self.keys], dtype=np.int64)
        self.shards: tuple[str, ...] = tuple(source.url for source in self._sources)
        self.content_hash: str = _content_hash(self._samples)

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
            DataError: the shard disappeared or shrank since it was indexed, or cannot be read.
        """
        sample = self._samples[index]
        start = min(member.offset for member in sample.members)
        end = max(member.offset + member.size for member in sample.members)
        try:
            data = self._sources[sample.shard].read_range(start, end)
        except OSError as error:
            raise DataError(
                f"{self.where(index)}: the shard can no longer be read ({error}); restore it and start again"
            ) from error
        if len(data) != end - start:
            raise DataError(f"{self.where(index)}: the shard changed since it was indexed; start the run again")
        return {
            member.extension: data[member.offset - start : member.offset - start + member.size]
            for member in sample.members
        }

    def subset(self, num_unique: int, *, seed: int) -> "ShardDataset":
        """The `num_unique` samples that come first in a seeded ranking; a smaller subset lies inside a larger one.

        Raises:
            ConfigError: `num_unique` is not between 1 and the number of samples.
        """
        if not 1 <= num_unique <= len(self):
            raise ConfigError(f"num_unique is {num_unique}, the shards hold {len(self)} samples; give 1 to {len(self)}")
        scores = words(seed, 0, self.sample_ids, SUBSET_STREAM)
        chosen = np.sort(np.argsort(scores, kind="stable")[:num_unique])
        smaller = ShardDataset.__new__(ShardDataset)
        smaller._sources = self._sources
        smaller._fill([self._samples[int(index)] for index in chosen])
        return smaller


def _content_hash(samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        files: list[tuple[Any, ...]] = [(member.extension, member.size) for member in sample.members]
        digest.update(repr((sample.key, files)).encode())
    return digest.hexdigest()
