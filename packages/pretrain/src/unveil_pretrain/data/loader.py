"""Batches for a range of steps, the same whatever the number of workers.

One work item is one whole step: a worker computes which samples the step sees (`order.step_indices`), reads and crops
them. So there is no sampler state to save, and step s is the same after a restart at s.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unveil_pretrain.data.captions import CaptionCounts
from unveil_pretrain.data.datasets import Example, ExampleDataset
from unveil_pretrain.data.order import step_indices
from unveil_pretrain.errors import ConfigError, DataError

__all__ = ["Batch", "train_batches", "val_batches"]


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
    """

    images: UInt8[Tensor, "b 3 h w"]
    sample_ids: Int64[Tensor, " b"]
    epochs: Int64[Tensor, " b"]
    captions: list[str] | None
    caption_counts: CaptionCounts = field(default_factory=CaptionCounts)
    all_captions: tuple[tuple[str, ...], ...] = ()


def train_batches(
    dataset: ExampleDataset, *, batch_size: int, start_step: int, num_steps: int, seed: int, num_workers: int = 0
) -> Iterator[Batch]:
    """Yield `num_steps` batches: those of steps start_step, start_step + 1, ....

    Args:
        dataset: An `ImageDataset` or `PairDataset`.
        batch_size: Images per batch; may exceed the number of samples, batches run across epochs.
        start_step: First step; 0, or the step of the checkpoint a run continues from.
        num_steps: How many batches to yield.
        seed: Seed of order, crops and captions.
        num_workers: Decoding processes; 0 decodes in this process. The batches do not depend on it.

    Raises:
        DataError: a sample cannot be read; the message names its shard and key.
        ConfigError: a number is out of range.
    """
    if batch_size < 1 or start_step < 0 or num_steps < 0:
        raise ConfigError(
            f"batch_size={batch_size}, start_step={start_step}, num_steps={num_steps}: "
            "give at least one image per batch and steps that are not negative"
        )
    return _load(_TrainSteps(dataset, batch_size, seed), range(start_step, start_step + num_steps), num_workers)


def val_batches(dataset: ExampleDataset, *, batch_size: int, num_workers: int = 0) -> Iterator[Batch]:
    """Yield every sample once, in stored order, under its fixed crop; the last batch may be smaller.

    Raises:
        DataError: a sample cannot be read.
        ConfigError: the batch size is not positive.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: give at least one image per batch")
    return _load(_ValSteps(dataset, batch_size), range(-(-len(dataset) // batch_size)), num_workers)


class _TrainSteps(Dataset[Batch | DataError]):
    """Item s is the batch of training step s, or the error that its samples gave."""

    def __init__(self, dataset: ExampleDataset, batch_size: int, seed: int) -> None:
        self._dataset, self._batch_size, self._seed = dataset, batch_size, seed

    def __getitem__(self, step: int) -> Batch | DataError:
        epochs, indices = step_indices(len(self._dataset), self._batch_size, step, seed=self._seed)
        try:
            examples = [
                self._dataset.train_example(int(index), seed=self._seed, epoch=int(epoch))
                for epoch, index in zip(epochs, indices, strict=True)
            ]
        except DataError as error:
            return error
        return _collate(examples, torch.from_numpy(epochs))


class _ValSteps(Dataset[Batch | DataError]):
    """Item s is the s-th batch of the validation pass, or the error that its samples gave."""

    def __init__(self, dataset: ExampleDataset, batch_size: int) -> None:
        self._dataset, self._batch_size = dataset, batch_size

    def __getitem__(self, step: int) -> Batch | DataError:
        indices = range(step * self._batch_size, min(len(self._dataset), (step + 1) * self._batch_size))
        try:
            examples = [self._dataset.val_example(index) for index in indices]
        except DataError as error:
            return error
        return _collate(examples, torch.zeros(len(examples), dtype=torch.int64))


def _collate(examples: Sequence[Example], epochs: Tensor) -> Batch:
    captions = [example.caption for example in examples if example.caption is not None]
    return Batch(
        images=torch.stack([example.image for example in examples]),
        sample_ids=torch.tensor([example.sample_id for example in examples], dtype=torch.int64),
        epochs=epochs,
        captions=captions or None,
        caption_counts=sum((example.caption_counts for example in examples), CaptionCounts()),
        all_captions=tuple(example.all_captions for example in examples if example.all_captions),
    )


def _load(steps: Dataset[Batch | DataError], order: range, num_workers: int) -> Iterator[Batch]:
    # A generator of its own: DataLoader draws a seed for its workers, which must not move torch's global generator.
    loader = DataLoader(
        steps, batch_size=None, sampler=order, num_workers=num_workers, generator=torch.Generator().manual_seed(0)
    )
    for item in loader:
        # Workers hand errors back as values: DataLoader would wrap a raised one in another process's traceback.
        if isinstance(item, DataError):
            raise item
        yield item
