"""Samples of shards as training sees them; `pairs.py` adds captions to the images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from unveil_pretrain.data.captions import CaptionCounts
from unveil_pretrain.data.images import (
    IMAGE_EXTENSIONS,
    center_crop,
    check_image_size,
    load_image,
    to_tensor,
    train_view,
)
from unveil_pretrain.data.shards import ShardDataset
from unveil_pretrain.errors import DataError

__all__ = ["Example", "ExampleDataset", "ImageDataset"]


@dataclass(frozen=True, slots=True)
class Example:
    """One sample ready for a batch: pixels (uint8 [3, h, w]), its stable id, its caption and what was done to it.

    In validation `all_captions` holds every caption of the image, `caption` being the first.
    """

    image: UInt8[Tensor, "3 h w"]
    sample_id: int
    caption: str | None
    caption_counts: CaptionCounts = field(default_factory=CaptionCounts)
    all_captions: tuple[str, ...] = ()


class ExampleDataset(Protocol):
    """What the loader needs of a data set."""

    @property
    def sample_ids(self) -> np.ndarray:
        """int64 [n]."""
        ...

    @property
    def content_hash(self) -> str:
        """64 hex digits that identify the samples and their order."""
        ...

    def __len__(self) -> int: ...

    def train_example(self, index: int, *, seed: int, epoch: int) -> Example:
        """The sample under the random crop (and caption) of this seed and epoch."""
        ...

    def val_example(self, index: int) -> Example:
        """The sample under the fixed crop (and its first caption)."""
        ...


class ImageDataset:
    """Images of a `ShardDataset`; other files of a sample are ignored."""

    def __init__(self, shards: ShardDataset, *, image_size: Sequence[int], mirror: bool = True) -> None:
        """Check that every sample holds one image.

        Args:
            shards: The samples.
            image_size: Height and width of the crops in pixels.
            mirror: Mirror half of the training crops.

        Raises:
            DataError: a sample holds no image, or several.
            ConfigError: the image size is not two positive numbers.
        """
        self.shards = shards
        self.image_size = check_image_size(image_size)
        self._mirror = mirror
        self._extensions = tuple(_image_extension(shards, index) for index in range(len(shards)))

    @property
    def sample_ids(self) -> np.ndarray:
        """int64 [n], the stable ids of the samples."""
        return self.shards.sample_ids

    @property
    def content_hash(self) -> str:
        """64 hex digits that identify the samples and their order."""
        return self.shards.content_hash

    def __len__(self) -> int:
        return len(self.shards)

    def train_example(self, index: int, *, seed: int, epoch: int) -> Example:
        """The image under the random crop of this seed and epoch."""
        return self.train_example_of(self.shards.read(index), index, seed=seed, epoch=epoch)

    def val_example(self, index: int) -> Example:
        """The image under the fixed centre crop."""
        return self.val_example_of(self.shards.read(index), index)

    def train_example_of(self, files: Mapping[str, bytes], index: int, *, seed: int, epoch: int) -> Example:
        """`train_example` of a sample whose files were read already."""
        sample_id = int(self.sample_ids[index])
        image = load_image(files[self._extensions[index]], self.shards.where(index))
        view = train_view(image, self.image_size, mirror=self._mirror, seed=seed, epoch=epoch, sample_id=sample_id)
        return Example(to_tensor(view), sample_id, None)

    def val_example_of(self, files: Mapping[str, bytes], index: int) -> Example:
        """`val_example` of a sample whose files were read already."""
        image = load_image(files[self._extensions[index]], self.shards.where(index))
        return Example(to_tensor(center_crop(image, self.image_size)), int(self.sample_ids[index]), None)


def _image_extension(shards: ShardDataset, index: int) -> str:
    found = [extension for extension in shards.extensions(index) if extension in IMAGE_EXTENSIONS]
    if len(found) != 1:
        has = ", ".join(f".{extension}" for extension in shards.extensions(index))
        raise DataError(
            f"{shards.where(index)}: a sample must hold one image ({', '.join(IMAGE_EXTENSIONS)}), "
            f"this one holds {has}; remove the sample or write the shard again"
        )
    return found[0]
