"""The data of a run: from what a user names to a training set and a validation set."""

from collections.abc import Callable
from dataclasses import dataclass

from unveil_pretrain.config import FlipConfig, MimConfig, config_to_json
from unveil_pretrain.data import ImageDataset, PairDataset, ShardDataset
from unveil_pretrain.errors import ConfigError

__all__ = ["RunData", "captions_of_samples", "open_data"]


@dataclass(frozen=True, slots=True)
class RunData:
    """The two data sets of a run."""

    train: ImageDataset | PairDataset
    val: ImageDataset | PairDataset

    def identity(self, config: MimConfig | FlipConfig) -> dict[str, object]:
        """What defines the run: its settings and the content of its data, not where they lie."""
        return {
            "config": config_to_json(config),
            "train_data_hash": self.train.content_hash,
            "val_data_hash": self.val.content_hash,
        }


def open_data(config: MimConfig | FlipConfig, *, train_data: str, val_data: str) -> RunData:
    """Index the shards and take the subsets that the settings ask for.

    Raises:
        DataError: shards are missing or damaged, or samples lack what the objective needs.
        ConfigError: a subset is larger than the data.
    """
    kind = PairDataset if config.objective.needs_captions else ImageDataset
    train, val = ShardDataset(train_data), ShardDataset(val_data)
    if config.num_unique:
        train = train.subset(config.num_unique, seed=config.seed)
    if config.val_images:
        val = val.subset(config.val_images, seed=config.val_mask_seed)
    return RunData(kind(train, image_size=config.image_size), kind(val, image_size=config.image_size))


def captions_of_samples(dataset: ImageDataset | PairDataset) -> Callable[[int], list[str]]:
    """A function that gives up to so many captions, from the beginning of the data set."""

    def captions(most: int) -> list[str]:
        if isinstance(dataset, ImageDataset):
            raise ConfigError("these samples have no captions; give image-caption shards")
        found: list[str] = []
        for index in range(len(dataset)):
            found.extend(dataset.captions(index))
            if len(found) >= most:
                break
        return found[:most]

    return captions
