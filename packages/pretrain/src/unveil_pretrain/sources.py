"""The data of a run: from what a user names to a training set and a validation set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unveil_pretrain.config import FlipConfig, MimConfig, config_to_json
from unveil_pretrain.data import ImageDataset, PairDataset, open_samples
from unveil_pretrain.data.lists import read_list, samples_of_list
from unveil_pretrain.errors import ConfigError

__all__ = ["RunData", "captions_of_samples", "open_data"]


@dataclass(frozen=True, slots=True)
class RunData:
    """The two data sets of a run."""

    train: ImageDataset | PairDataset
    val: ImageDataset | PairDataset
    train_list_hash: str | None = None
    """Hash of the list that chose the training samples, where there is one."""

    def identity(self, config: MimConfig | FlipConfig) -> dict[str, object]:
        """What defines the run: its settings and the content of its data, not where they lie."""
        identity: dict[str, object] = {
            "config": config_to_json(config),
            "train_data_hash": self.train.content_hash,
            "val_data_hash": self.val.content_hash,
        }
        # Not as None in runs without a list, so that those begun before there were lists continue.
        return identity if self.train_list_hash is None else {**identity, "train_list_hash": self.train_list_hash}


def open_data(
    config: MimConfig | FlipConfig, *, train_data: str, val_data: str, train_list: Path | None = None
) -> RunData:
    """Index shards or folders and take the samples that the list and the settings ask for.

    Args:
        config: The settings.
        train_data: As `unveil_pretrain.data.open_samples` takes it.
        val_data: Likewise.
        train_list: A list of `pretrain subset`; without one all training samples are used.

    Raises:
        DataError: data are missing or damaged, samples lack what the objective needs, or the list is of other data.
        ConfigError: a subset is larger than the data.
    """
    kind = PairDataset if config.objective.needs_captions else ImageDataset
    train, val = open_samples(train_data), open_samples(val_data)
    listed = None if train_list is None else read_list(train_list)
    if listed is not None:
        train = samples_of_list(train, listed, str(train_list))
    if config.num_unique:
        train = train.subset(config.num_unique, seed=config.seed)
    if config.val_images:
        val = val.subset(config.val_images, seed=config.val_mask_seed)
    return RunData(
        kind(train, image_size=config.image_size, crop_scale=config.crop_scale, mirror=config.mirror),
        kind(val, image_size=config.image_size),
        None if listed is None else listed.hash,
    )


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
