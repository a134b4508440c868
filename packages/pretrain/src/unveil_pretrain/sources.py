"""The data of a run: from what a user names to a training set and a validation set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unveil_pretrain.config import FlipConfig, MimConfig, config_to_json
from unveil_pretrain.data import ClipDataset, ImageDataset, PairDataset, Samples, open_samples
from unveil_pretrain.data.clip_decode import VIDEO_EXTENSIONS
from unveil_pretrain.data.images import IMAGE_EXTENSIONS
from unveil_pretrain.data.lists import read_list, samples_of_list
from unveil_pretrain.data.retrying import ReadPolicy
from unveil_pretrain.errors import ConfigError

__all__ = ["RunData", "RunSamples", "captions_of_samples", "open_data"]


_POLICY: Final = ReadPolicy()

RunSamples = ImageDataset | PairDataset | ClipDataset
"""Samples as a run sees them."""


@dataclass(frozen=True, slots=True)
class RunData:
    """The two data sets of a run."""

    train: RunSamples
    val: RunSamples
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
    config: MimConfig | FlipConfig,
    *,
    train_data: str,
    val_data: str,
    train_list: Path | None = None,
    reading: ReadPolicy = _POLICY,
) -> RunData:
    """Index shards or folders and take the samples that the list and the settings ask for.

    Args:
        config: The settings.
        train_data: As `unveil_pretrain.data.open_samples` takes it.
        val_data: Likewise.
        train_list: A list of `pretrain subset`; without one all training samples are used.
        reading: How long and how often to try to read.

    Raises:
        DataError: data are missing or damaged, samples lack what the objective needs, or the list is of other data.
        ConfigError: a subset is larger than the data.
    """
    extensions = IMAGE_EXTENSIONS if config.objective.clip_settings() is None else VIDEO_EXTENSIONS
    train, val = (open_samples(place, extensions=extensions, policy=reading) for place in (train_data, val_data))
    listed = None if train_list is None else read_list(train_list)
    if listed is not None:
        train = samples_of_list(train, listed, str(train_list))
    if config.num_unique:
        train = train.subset(config.num_unique, seed=config.seed)
    if config.val_images:
        val = val.subset(config.val_images, seed=config.val_mask_seed)
    return RunData(
        _samples_for(config, train),
        _samples_for(config, val),
        None if listed is None else listed.hash,
    )


def _samples_for(config: MimConfig | FlipConfig, samples: Samples) -> RunSamples:
    """The samples as the objective needs them: images, pairs or clips."""
    size, scale, mirror = config.image_size, config.crop_scale, config.mirror
    clips = config.objective.clip_settings()
    if clips is not None:
        return ClipDataset(samples, image_size=size, clips=clips, crop_scale=scale, mirror=mirror)
    if config.objective.needs_captions:
        limit = config.objective.caption_limit()
        return PairDataset(samples, image_size=size, crop_scale=scale, mirror=mirror, max_characters=limit)
    return ImageDataset(samples, image_size=size, crop_scale=scale, mirror=mirror)


def captions_of_samples(dataset: RunSamples) -> Callable[[int], list[str]]:
    """A function that gives up to so many captions, from the beginning of the data set."""

    def captions(most: int) -> list[str]:
        if not isinstance(dataset, PairDataset):
            raise ConfigError("these samples have no captions; give image-caption shards")
        found: list[str] = []
        for index in range(len(dataset)):
            found.extend(dataset.captions(index))
            if len(found) >= most:
                break
        return found[:most]

    return captions
