"""Samples of shards as training sees them; `pairs.py` adds captions to the images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from unveil_pretrain.data.captions import CaptionCounts
from unveil_pretrain.data.crops import SIMMIM_SCALE, check_crop_scale
from unveil_pretrain.data.images import (
    IMAGE_EXTENSIONS,
    center_crop,
    check_image_size,
    load_image,
    to_tensor,
    train_view,
)
from unveil_pretrain.data.samples import Samples
from unveil_pretrain.errors import DataError

__all__ = ["Example", "ExampleDataset", "ImageDataset", "image_extension"]


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
    """Images of some samples; other files of a sample are ignored."""

    def __init__(
        self,
        shards: Samples,
        *,
        image_size: Sequence[int],
        crop_scale: tuple[float, float] = SIMMIM_SCALE,
        mirror: bool = True,
    ) -> None:
        """Find the image of every sample. One that holds no image, or several, raises DataError when it is read.

        Args:
            shards: The samples, of shards or of a folder.
            image_size: Height and width of the crops in pixels.
            crop_scale: Smallest and largest area of the training crops, as shares of the image.
            mirror: Mirror half of the training crops.

        Raises:
            DataError: no sample holds one image.
            ConfigError: the image size is not two positive numbers, or the areas are no shares.
        """
        check_crop_scale(crop_scale)
        self.shards = shards
        self.image_size = check_image_size(image_size)
        self._scale, self._mirror = crop_scale, mirror
        self._extensions = tuple(image_extension(shards.extensions(index)) for index in range(len(shards)))
        if not any(self._extensions):
            raise DataError(f"{_no_image(shards, 0)} (no other sample does, either)")

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
        view = train_view(
            self._image(files, index),
            self.shards.where(index),
            self.image_size,
            scale=self._scale,
            mirror=self._mirror,
            seed=seed,
            epoch=epoch,
            sample_id=sample_id,
        )
        return Example(view, sample_id, None)

    def val_example_of(self, files: Mapping[str, bytes], index: int) -> Example:
        """`val_example` of a sample whose files were read already."""
        image = load_image(self._image(files, index), self.shards.where(index))
        return Example(to_tensor(center_crop(image, self.image_size)), int(self.sample_ids[index]), None)

    def _image(self, files: Mapping[str, bytes], index: int) -> bytes:
        extension = self._extensions[index]
        if extension is None:
            raise DataError(_no_image(self.shards, index))
        return files[extension]


def image_extension(extensions: Sequence[str]) -> str | None:
    """The extension of the one image among the files of a sample; None where there is none, or several."""
    found = [extension for extension in extensions if extension in IMAGE_EXTENSIONS]
    return found[0] if len(found) == 1 else None


def _no_image(shards: Samples, index: int) -> str:
    has = ", ".join(f".{extension}" for extension in shards.extensions(index))
    return (
        f"{shards.where(index)}: a sample must hold one image ({', '.join(IMAGE_EXTENSIONS)}), "
        f"this one holds {has}; remove the sample or write the shard again"
    )
