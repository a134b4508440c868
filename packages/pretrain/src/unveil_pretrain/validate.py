"""A validation loss one can trust: frozen masks, fixed crops, fixed pools, one loss per image.

Every checkpoint of every run with the same settings scores the same images under the same masks, and some of its
training images in the same way: the difference of the two is the over-fitting gap.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unveil_pretrain.data import ImageDataset, PairDataset, val_batches
from unveil_pretrain.data.datasets import Example
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.inputs import Normaliser
from unveil_pretrain.objectives.base import Objective

__all__ = ["MASK_EPOCH", "KeyOrder", "Score", "ValidationSet", "evaluate", "key_ordered", "summarise"]

MASK_EPOCH = 0
"""Epoch key of every validation mask."""


@dataclass(frozen=True, slots=True)
class Score:
    """A mean loss with its standard error, over `num_images` images (or pairs)."""

    loss: float
    standard_error: float
    num_images: int


class KeyOrder:
    """The first samples of a data set in the order of their keys, so that pools do not depend on the shards."""

    def __init__(self, dataset: ImageDataset | PairDataset, *, multiple_of: int) -> None:
        """Order `dataset` and drop the last samples until a multiple of `multiple_of` is left, perhaps none."""
        keys = dataset.shards.keys
        used = len(keys) // multiple_of * multiple_of
        self._dataset = dataset
        self._order: Sequence[int] = sorted(range(len(keys)), key=lambda index: (keys[index], index))[:used]
        self.sample_ids: np.ndarray = dataset.sample_ids[np.array(self._order, dtype=np.int64)]
        listed = f"{dataset.content_hash} {multiple_of} {used}"
        self.content_hash: str = hashlib.sha256(listed.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._order)

    def train_example(self, index: int, *, seed: int, epoch: int) -> Example:
        """The sample under the random crop of this seed and epoch."""
        return self._dataset.train_example(self._order[index], seed=seed, epoch=epoch)

    def val_example(self, index: int) -> Example:
        """The sample under the fixed crop."""
        return self._dataset.val_example(self._order[index])


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationSet:
    """What one call of `evaluate` scores."""

    samples: KeyOrder
    """The images in key order, a whole number of groups."""
    mask_seed: int
    """Seed of the frozen masks."""
    batch_size: int
    """Images to encode at once; the losses do not depend on it beyond rounding."""
    num_workers: int
    """Decoding processes."""


def evaluate(
    objective: Objective, validation: ValidationSet, normalise: Normaliser, *, bfloat16: bool
) -> dict[str, Score]:
    """Score every sample of a validation set; gives "loss" and the objective's further views.

    The objective is put into evaluation mode (no stochastic depth) and back into the mode it had.

    Raises:
        DataError: an image cannot be read.
    """
    group = objective.group_size
    groups_at_once = max(1, validation.batch_size // group)
    losses: dict[str, list[Tensor]] = {}
    was_training = objective.training
    objective.eval()
    try:
        with torch.no_grad(), torch.autocast(normalise.device.type, torch.bfloat16, enabled=bfloat16):
            for batch in val_batches(
                validation.samples, batch_size=group * groups_at_once, num_workers=validation.num_workers
            ):
                of_batch = objective.validation_losses(
                    normalise(batch), seed=validation.mask_seed, chunk_size=validation.batch_size
                )
                for view, values in of_batch.items():
                    losses.setdefault(view, []).append(values.double().cpu())
    finally:
        objective.train(was_training)
    return {view: summarise(torch.cat(values)) for view, values in losses.items()}


def summarise(losses: Tensor) -> Score:
    """Mean and its standard error (unbiased standard deviation over √n) of per-sample losses [b]; 0 for one sample."""
    num = losses.shape[0]
    deviation = float(losses.std()) if num > 1 else 0.0
    return Score(float(losses.mean()), deviation / math.sqrt(num), num)


def key_ordered(dataset: ImageDataset | PairDataset, objective: Objective) -> KeyOrder:
    """The validation samples in key order, in whole groups.

    Raises:
        ConfigError: there is not one whole group.
    """
    samples = KeyOrder(dataset, multiple_of=objective.group_size)
    if len(samples) == 0:
        raise ConfigError(
            f"the validation data has {len(dataset)} pairs, but negative_pool is {objective.group_size}; "
            f"give a pool of at most {len(dataset)}, or more validation data"
        )
    return samples
