"""What every source of samples offers, whether shards or a folder: random access to files by a stable key.

A key is what randomness is keyed by and what lists of samples are made of, so it depends on the sample and not on the
place: a folder and the shards that were built from it have the same keys.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, Self

import numpy as np

from unveil_pretrain.data.streams import SUBSET_STREAM, words
from unveil_pretrain.errors import ConfigError

__all__ = ["Samples", "first_repeated", "hash_of_files", "sample_id_of", "seeded_choice"]


def sample_id_of(key: str) -> int:
    """Stable id of a sample: the first 63 bits of the BLAKE2b digest of its key."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


class Samples(Protocol):
    """Samples in a fixed order, each a few files under one key."""

    keys: tuple[str, ...]
    """The key of each sample."""
    sample_ids: np.ndarray
    """int64 [n], `sample_id_of` each key."""
    content_hash: str
    """64 hex digits over keys, extensions and byte sizes in order; the place does not enter."""

    def __len__(self) -> int: ...

    def extensions(self, index: int) -> tuple[str, ...]:
        """File extensions of one sample, lower case; nothing is read."""
        ...

    def where(self, index: int) -> str:
        """Place and key of one sample, for messages."""
        ...

    def read(self, index: int) -> dict[str, bytes]:
        """The files of one sample, by extension; DataError if they can no longer be read."""
        ...

    def label(self, index: int) -> str | None:
        """The class of one sample; None where nothing says so. DataError as `read`."""
        ...

    def select(self, indices: Sequence[int]) -> Self:
        """These samples, in this order."""
        ...

    def subset(self, num_unique: int, *, seed: int) -> Self:
        """The `num_unique` samples that come first in a seeded ranking; ConfigError if there are not so many."""
        ...


def seeded_choice(sample_ids: np.ndarray, num_unique: int, *, seed: int) -> list[int]:
    """Indices, ascending, of the `num_unique` samples first in a seeded ranking: smaller choices lie in larger.

    Raises:
        ConfigError: `num_unique` is not between 1 and the number of samples.
    """
    if not 1 <= num_unique <= len(sample_ids):
        raise ConfigError(
            f"num_unique is {num_unique}, the data holds {len(sample_ids)} samples; give 1 to {len(sample_ids)}"
        )
    scores = words(seed, 0, sample_ids, SUBSET_STREAM)
    return np.sort(np.argsort(scores, kind="stable")[:num_unique]).tolist()


def hash_of_files(samples: Iterable[tuple[str, list[tuple[str, int]]]]) -> str:
    """The content hash of samples given as (key, [(extension, bytes)])."""
    digest = hashlib.sha256()
    for key, files in samples:
        digest.update(repr((key, files)).encode())
    return digest.hexdigest()


def first_repeated(keys: Sequence[str]) -> str | None:
    """A key that occurs more than once, or None."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None
