"""Random numbers and sample order as a pure function of (seed, purpose, position).

A dataset becomes an endless *stream*: position ``p`` is sample ``permutation(epoch)[p mod n]`` of epoch ``p div n``,
and everything random about it (crop, flip, colours, mosaic partner) is drawn from generators seeded by ``(seed, p)``.
The content of a batch therefore does not depend on worker count, on what was drawn before, or on whether the run was
interrupted. Augmentation libraries (timm, mmdet, mmsegmentation) read the global generators, so these are seeded.
"""

import enum
import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

__all__ = ["Purpose", "SampleStream", "StreamBatches", "derive_seed", "keyed_loader", "seed_globals"]


class Purpose(enum.IntEnum):
    """What a random number is for; keeps the generators of different uses apart."""

    INITIALISATION = 0
    ORDER = 1
    AUGMENTATION = 2
    FETCH = 3
    STEP = 4
    SUBSET = 5
    EVALUATION = 6


@runtime_checkable
class Indexable(Protocol):
    """A finite map-style dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def derive_seed(seed: int, purpose: Purpose, index: int = 0) -> int:
    """A 32-bit seed for one use, by numpy's ``SeedSequence`` (stable across versions and machines)."""
    return int(np.random.SeedSequence([seed, int(purpose), index]).generate_state(1)[0])


def seed_globals(value: int) -> None:
    """Seeds the generators that third-party transforms and layers read: ``random``, ``numpy.random``, torch."""
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 - timm, mmdet and mmsegmentation draw from the legacy global generator
    torch.manual_seed(value)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    order = np.random.default_rng(derive_seed(seed, Purpose.ORDER, epoch)).permutation(num_samples)
    order.setflags(write=False)
    return order


class SampleStream(Dataset[Any]):
    """An endless, reproducible stream over a finite dataset.

    Args:
        dataset: a map-style dataset; its transforms may use the global generators.
        seed: the run's seed.
    """

    def __init__(self, dataset: Indexable, seed: int) -> None:
        if len(dataset) == 0:
            raise ValueError("cannot stream an empty dataset; give at least one sample")
        self.dataset = dataset
        self.seed = seed
        # mmengine and mmdet read the class names from here.
        self.metainfo = getattr(dataset, "metainfo", {})

    def __len__(self) -> int:
        return len(self.dataset)

    def index(self, position: int) -> int:
        """The sample at a position of the stream."""
        epoch, offset = divmod(position, len(self.dataset))
        return int(_permutation(self.seed, epoch, len(self.dataset))[offset])

    def __getitem__(self, position: int) -> Any:
        """The sample at `position`, with its own random numbers."""
        seed_globals(derive_seed(self.seed, Purpose.AUGMENTATION, position))
        return self.dataset[self.index(position)]


class StreamBatches(Sampler[list[int]]):
    """Endless batches of consecutive stream positions; `start` says with which batch the next iteration begins."""

    def __init__(self, batch_size: int, num_samples: int) -> None:
        self.batch_size = batch_size
        self.num_samples = num_samples
        self.start = 0

    def __iter__(self) -> Iterator[list[int]]:
        batch = self.start
        while True:
            yield list(range(batch * self.batch_size, (batch + 1) * self.batch_size))
            batch += 1

    def __len__(self) -> int:
        """Batches per pass over the data, rounded up (the stream itself does not end)."""
        return -(-self.num_samples // self.batch_size)


def keyed_loader(
    dataset: Indexable,
    *,
    batch_size: int,
    seed: int,
    num_workers: int,
    collate: Callable[[list[Any]], Any],
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """An endless training loader whose batches depend on (seed, step) only.

    Args:
        dataset: a map-style dataset of the task, such as an mmdet dataset.
        batch_size: samples per batch; batches run across epoch borders, so none is short.
        seed: the run's seed.
        num_workers: loader processes; 0 loads in this process. Does not change the batches.
        collate: turns a list of samples into a batch; mm datasets want ``mmengine.dataset.pseudo_collate``.
        pin_memory: for a CUDA device.
    """
    stream = SampleStream(dataset, seed)
    return DataLoader(
        stream,
        batch_sampler=StreamBatches(batch_size, len(stream)),
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
    )
