"""Batches for a range of steps, the same whatever the number of workers.

One work item is one whole step: a worker computes which samples the step sees (`order.step_indices`), reads and crops
them. So there is no sampler state to save, and step s is the same after a restart at s.

A sample that cannot be read may be replaced, if the caller allows it: by the sample that follows it in the permutation
of the same epoch, or the next one after that which can be read. Which one that is depends on nothing but the files.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from unveil_pretrain.data.captions import CaptionCounts
from unveil_pretrain.data.datasets import Example, ExampleDataset
from unveil_pretrain.data.order import permuted, step_ranks
from unveil_pretrain.data.retrying import noting_retries
from unveil_pretrain.data.workers import Loaded, WorkerKind, loaded_in_order
from unveil_pretrain.errors import ConfigError, DataError, SourceError

__all__ = ["Batch", "WorkerKind", "train_batches", "val_batches"]

_PATIENCE: Final = 600.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of one step.

    Attributes:
        images: uint8 [b, 3, h, w], not normalised.
        sample_ids: int64 [b].
        epochs: int64 [b], the epoch in which each sample is seen; zero in validation.
        captions: One per image, or None for images alone.
        caption_counts: What was done to the captions.
        all_captions: In validation of pairs every caption of each image; empty otherwise.
        skipped: What was wrong with every sample that was replaced, one line each; `sample_ids` are those of the
            replacements.
    """

    images: UInt8[Tensor, "b 3 h w"]
    sample_ids: Int64[Tensor, " b"]
    epochs: Int64[Tensor, " b"]
    captions: list[str] | None
    caption_counts: CaptionCounts = field(default_factory=CaptionCounts)
    all_captions: tuple[tuple[str, ...], ...] = ()
    skipped: tuple[str, ...] = ()


def train_batches(
    dataset: ExampleDataset,
    *,
    batch_size: int,
    start_step: int,
    num_steps: int,
    seed: int,
    num_workers: int = 0,
    worker_kind: WorkerKind = "threads",
    share: slice = slice(None),
    tolerate: bool = False,
    patience: float = _PATIENCE,
) -> Iterator[Batch]:
    """Yield `num_steps` batches: those of steps start_step, start_step + 1, ....

    Args:
        dataset: An `ImageDataset` or `PairDataset`.
        batch_size: Images per batch; may exceed the number of samples, batches run across epochs.
        start_step: First step; 0, or the step of the checkpoint a run continues from.
        num_steps: How many batches to yield.
        seed: Seed of order, crops and captions.
        num_workers: How many threads or processes decode; 0 decodes as batches are asked for. No batch depends on it.
        worker_kind: Which of the two.
        share: The part of every batch that is loaded here; other processes of a run load the rest.
        tolerate: Replace samples that cannot be read and say so in `Batch.skipped`, instead of raising DataError.
        patience: Seconds to wait for a batch of a thread or process before it counts as stuck.

    Raises:
        DataError: a sample cannot be read, the message names its shard and key; or none of an epoch can; or a worker
            ended or is stuck.
        SourceError: a disk or store does not answer; no sample is replaced for that.
        ConfigError: a number is out of range.
    """
    if batch_size < 1 or start_step < 0 or num_steps < 0 or num_workers < 0:
        raise ConfigError(
            f"batch_size={batch_size}, start_step={start_step}, num_steps={num_steps}, num_workers={num_workers}: "
            "give at least one image per batch, and steps and workers that are not negative"
        )
    steps = _TrainSteps(dataset, batch_size, seed, share, tolerate)
    order = range(start_step, start_step + num_steps)
    return loaded_in_order(steps, order, num_workers=num_workers, worker_kind=worker_kind, patience=patience)


def val_batches(
    dataset: ExampleDataset,
    *,
    batch_size: int,
    num_workers: int = 0,
    worker_kind: WorkerKind = "threads",
    patience: float = _PATIENCE,
) -> Iterator[Batch]:
    """Yield every sample once, in stored order, under its fixed crop; the last batch may be smaller.

    Raises:
        DataError: a sample cannot be read, or a worker ended or is stuck.
        ConfigError: the batch size is not positive.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: give at least one image per batch")
    steps, order = _ValSteps(dataset, batch_size), range(-(-len(dataset) // batch_size))
    return loaded_in_order(steps, order, num_workers=num_workers, worker_kind=worker_kind, patience=patience)


def _loaded(make: Callable[[], Batch]) -> Loaded[Batch]:
    """What `make` returns or why it cannot, with the reads that had to be tried again."""
    with noting_retries() as retries:
        try:
            value: Batch | DataError = make()
        except DataError as error:
            value = error
    return Loaded(value, tuple(retries))


class _TrainSteps(Dataset[Loaded[Batch]]):
    """Item s is the batch of training step s, or the error that its samples gave."""

    def __init__(self, dataset: ExampleDataset, batch_size: int, seed: int, share: slice, tolerate: bool) -> None:
        self._dataset, self._batch_size, self._seed = dataset, batch_size, seed
        self._share, self._tolerate = share, tolerate

    def __getitem__(self, step: int) -> Loaded[Batch]:
        return _loaded(lambda: self._batch(step))

    def _batch(self, step: int) -> Batch:
        num_samples = len(self._dataset)
        epochs, positions = (part[self._share] for part in step_ranks(num_samples, self._batch_size, step))
        indices = permuted(num_samples, positions, epochs, seed=self._seed)
        skipped: list[str] = []
        examples = [
            self._example(int(index), int(position), int(epoch), skipped)
            for index, position, epoch in zip(indices, positions, epochs, strict=True)
        ]
        return _collate(examples, torch.from_numpy(epochs), tuple(skipped))

    def _example(self, index: int, position: int, epoch: int, skipped: list[str]) -> Example:
        """The sample, or the next readable one of this epoch's permutation; adds to `skipped` what was wrong."""
        num_samples = len(self._dataset)
        for further in range(1, num_samples + 1):
            try:
                return self._dataset.train_example(index, seed=self._seed, epoch=epoch)
            except SourceError:  # what a sample holds is not known: a run without it would be another one
                raise
            except DataError as error:
                if not self._tolerate:
                    raise
                skipped.append(str(error))
            following = np.array([(position + further) % num_samples])
            index = int(permuted(num_samples, following, np.array([epoch]), seed=self._seed)[0])
        raise DataError(f"none of {num_samples} samples can be read; the first: {skipped[-num_samples]}")


class _ValSteps(Dataset[Loaded[Batch]]):
    """Item s is the s-th batch of the validation pass, or the error that its samples gave."""

    def __init__(self, dataset: ExampleDataset, batch_size: int) -> None:
        self._dataset, self._batch_size = dataset, batch_size

    def __getitem__(self, step: int) -> Loaded[Batch]:
        return _loaded(lambda: self._batch(step))

    def _batch(self, step: int) -> Batch:
        indices = range(step * self._batch_size, min(len(self._dataset), (step + 1) * self._batch_size))
        examples = [self._dataset.val_example(index) for index in indices]
        return _collate(examples, torch.zeros(len(examples), dtype=torch.int64))


def _collate(examples: Sequence[Example], epochs: Tensor, skipped: tuple[str, ...] = ()) -> Batch:
    captions = [example.caption for example in examples if example.caption is not None]
    return Batch(
        images=torch.from_numpy(np.stack([example.image.numpy() for example in examples])),
        sample_ids=torch.tensor([example.sample_id for example in examples], dtype=torch.int64),
        epochs=epochs,
        captions=captions or None,
        caption_counts=sum((example.caption_counts for example in examples if example.caption), CaptionCounts()),
        all_captions=tuple(example.all_captions for example in examples if example.all_captions),
        skipped=skipped,
    )
