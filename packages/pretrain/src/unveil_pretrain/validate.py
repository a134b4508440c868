"""A validation loss one can trust: frozen masks, fixed crops, fixed pools, one loss per image.

Every checkpoint of every run with the same settings scores the same images under the same masks, and some of its
training images in the same way: the difference of the two is the over-fitting gap. Each image may be scored under
several masks, whose mean is its loss: mask j is that of epoch key `MASK_EPOCH` + j.

Several processes share the batches and give, bit for bit, what one process gives.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unveil_pretrain.comparison import mean_and_error
from unveil_pretrain.data import ClipDataset, ImageDataset, PairDataset, val_batches
from unveil_pretrain.data.datasets import Example
from unveil_pretrain.errors import ConfigError, DataError
from unveil_pretrain.inputs import Normaliser
from unveil_pretrain.objectives.base import Inputs, Objective
from unveil_pretrain.parallel import gathered
from unveil_pretrain.val_table import ViewTable
from unveil_pretrain.world import World

__all__ = ["MASK_EPOCH", "Evaluation", "KeyOrder", "Score", "ValidationSet", "evaluate", "key_ordered", "summarise"]

MASK_EPOCH = 0
"""Epoch key of the first validation mask of every image."""


@dataclass(frozen=True, slots=True)
class Score:
    """A mean loss with its standard error, over `num_images` images (or pairs)."""

    loss: float
    standard_error: float
    num_images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What one call of `evaluate` found, image by image."""

    keys: tuple[str, ...]
    sample_ids: np.ndarray
    """int64 [n]."""
    groups: np.ndarray
    """int64 [n]: the pool of each image."""
    losses: Mapping[str, np.ndarray]
    """Views of the loss by name, float64 [n]."""
    set_scores: Mapping[str, np.ndarray]
    """Scores over the whole set by name, a value per image, float64 [n]; empty in processes that do not write."""

    def score(self, view: str = "loss") -> Score:
        """Mean and standard error of a view or of a score over the set."""
        return summarise({**self.losses, **self.set_scores}[view], self.groups)

    def scores(self) -> dict[str, Score]:
        """Those of every view of the loss."""
        return {view: summarise(values, self.groups) for view, values in self.losses.items()}

    def table(self, split: str) -> ViewTable:
        """Everything, as a part of the table of a validation."""
        views = {**self.losses, **self.set_scores}
        return ViewTable(split=split, keys=self.keys, sample_ids=self.sample_ids, groups=self.groups, views=views)


class KeyOrder:
    """Samples of a data set in the order of their keys, so that pools do not depend on the shards."""

    def __init__(self, dataset: ImageDataset | PairDataset | ClipDataset, *, multiple_of: int) -> None:
        """Order `dataset` and drop the last samples until a multiple of `multiple_of` is left, perhaps none."""
        keys = dataset.shards.keys
        used = len(keys) // multiple_of * multiple_of
        self._dataset = dataset
        self._order: Sequence[int] = sorted(range(len(keys)), key=lambda index: (keys[index], index))[:used]
        self.keys: tuple[str, ...] = tuple(keys[index] for index in self._order)
        self.sample_ids: np.ndarray = dataset.sample_ids[np.array(self._order, dtype=np.int64)]
        listed = f"{dataset.content_hash} {multiple_of} {used}"
        self.content_hash: str = hashlib.sha256(listed.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._order)

    def part(self, start: int, stop: int) -> "KeyOrder":
        """The samples from `start` up to `stop` or the end; only to be read from, since it keeps the whole's hash."""
        some = copy.copy(self)
        some._order, some.keys = self._order[start:stop], self.keys[start:stop]
        some.sample_ids = self.sample_ids[start:stop]
        return some

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
    num_masks: int = 1
    """Masks per image; its loss is the mean over them."""
    batch_size: int
    """Images to encode at once; the losses do not depend on it beyond rounding."""
    num_workers: int
    """Decoding processes."""


def evaluate(
    objective: Objective,
    validation: ValidationSet,
    normalise: Normaliser,
    *,
    bfloat16: bool,
    world: World | None = None,
    set_scores: bool = False,
) -> Evaluation:
    """Score every sample of a validation set: "loss", and the objective's further views.

    The objective is put into evaluation mode (no stochastic depth) and back into the mode it had.

    Args:
        objective: What to score.
        validation: The samples and their masks.
        normalise: From a batch to the device.
        bfloat16: Compute in bfloat16 by autocast.
        world: The processes that share the batches, a single one by default; each has the same objective, and gets all
            losses.
        set_scores: Also the scores that need the whole set at once, in the process that writes.

    Raises:
        DataError: an image cannot be read; in every process, so that none waits for the others.
    """
    world = world or World()
    group = objective.group_size
    batch_size = group * max(1, validation.batch_size // group)
    was_training = objective.training
    objective.eval()
    try:
        with (
            gathered(objective),
            torch.no_grad(),
            torch.autocast(normalise.device.type, torch.bfloat16, enabled=bfloat16),
        ):
            mine = _score_share(objective, validation, normalise, batch_size, world)
            parts = world.gather_objects(mine)
            for part in parts:
                if isinstance(part, DataError):
                    raise part
            whole = [part for part in parts if isinstance(part, _Part) and part.losses]
            scored: Mapping[str, Tensor] = {}
            if set_scores and world.writes:
                scored = objective.set_scores(_joined([part.rows for part in whole]))
    finally:
        objective.train(was_training)
    samples = validation.samples
    return Evaluation(
        keys=samples.keys,
        sample_ids=samples.sample_ids,
        groups=np.arange(len(samples)) // group,
        losses={view: values.numpy() for view, values in _joined([part.losses for part in whole]).items()},
        set_scores={name: values.double().cpu().numpy() for name, values in scored.items()},
    )


def summarise(values: np.ndarray, groups: np.ndarray | None = None) -> Score:
    """Mean and standard error (unbiased standard deviation over √n) of per-sample losses [n]; error 0 for one sample.

    Samples that share negatives are not independent: where they form 10 pools or more, the error is over the pools.
    """
    mean, error, _ = mean_and_error(values, np.arange(len(values)) if groups is None else groups)
    return Score(mean, error, len(values))


def key_ordered(dataset: ImageDataset | PairDataset | ClipDataset, objective: Objective) -> KeyOrder:
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


@dataclass(frozen=True, slots=True)
class _Part:
    """What one process scored: losses float64 by view, and rows for the scores over the set."""

    losses: Mapping[str, Tensor]
    rows: Mapping[str, Tensor]


def _score_share(
    objective: Objective, validation: ValidationSet, normalise: Normaliser, batch_size: int, world: World
) -> _Part | DataError:
    """This process's batches, whole ones, so that no batch depends on the number of processes."""
    num_batches = -(-len(validation.samples) // batch_size)
    first, last = (num_batches * rank // world.size for rank in (world.rank, world.rank + 1))
    part = validation.samples.part(first * batch_size, last * batch_size)
    losses: list[Mapping[str, Tensor]] = []
    rows: list[Mapping[str, Tensor]] = []
    try:
        for batch in val_batches(part, batch_size=batch_size, num_workers=validation.num_workers):
            of_batch, of_set = _score_batch(objective, normalise(batch), validation)
            losses.append(of_batch)
            rows.append(of_set)
    except DataError as error:
        return error
    return _Part(_joined(losses), _joined(rows))


def _score_batch(
    objective: Objective, inputs: Inputs, validation: ValidationSet
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Means over the masks of each view, float64 on the CPU, and the rows of the first mask."""
    sums: dict[str, tuple[Tensor, int]] = {}
    rows: dict[str, Tensor] = {}
    for draw in range(validation.num_masks):
        masked = replace(inputs, epochs=torch.full_like(inputs.epochs, MASK_EPOCH + draw))
        scored = objective.score_samples(masked, seed=validation.mask_seed, chunk_size=validation.batch_size)
        if draw == 0:
            rows = {name: value.cpu() for name, value in scored.rows.items()}
        for view, values in scored.losses.items():
            total, num = sums.get(view, (torch.zeros(len(values), dtype=torch.float64), 0))
            sums[view] = (total + values.double().cpu(), num + 1)
    return {view: total / num for view, (total, num) in sums.items()}, rows


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else {})}
