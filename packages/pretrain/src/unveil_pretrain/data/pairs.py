"""Image-caption pairs of shards, and a look over their captions without decoding an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unveil_pretrain.data.captions import MAX_CHARACTERS, CaptionCounts, CaptionReading, read_captions
from unveil_pretrain.data.crops import SIMMIM_SCALE
from unveil_pretrain.data.datasets import Example, ImageDataset
from unveil_pretrain.data.samples import Samples
from unveil_pretrain.data.streams import CAPTION_STREAM, draws
from unveil_pretrain.errors import DataError

__all__ = ["CAPTION_FILES", "CaptionReport", "PairDataset", "inspect_captions"]

CAPTION_FILES = frozenset({"txt", "json"})
"""Extensions of files that may hold captions."""


class PairDataset:
    """Image-caption pairs; `captions.py` says where captions come from.

    Training draws one caption per epoch from (seed, epoch, sample id); validation always takes the first. A sample
    without a caption raises DataError when it is read, like one whose image is broken, so that the loader skips and
    counts both in the same way.
    """

    def __init__(
        self,
        shards: Samples,
        *,
        image_size: Sequence[int],
        crop_scale: tuple[float, float] = SIMMIM_SCALE,
        mirror: bool = False,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        """Check that there are files which may hold captions.

        Args:
            shards: The samples.
            image_size: Height and width of the crops in pixels.
            crop_scale: Smallest and largest area of the training crops, as shares of the image.
            mirror: Mirror half of the training crops, though captions may say left and right.
            max_characters: Longer captions are cut here, and counted.

        Raises:
            DataError: no sample at all has a .txt or .json; or as `ImageDataset`.
            ConfigError: as `ImageDataset`.
        """
        self.images = ImageDataset(shards, image_size=image_size, crop_scale=crop_scale, mirror=mirror)
        self.shards = shards
        self.max_characters = max_characters
        if not any(CAPTION_FILES.intersection(shards.extensions(index)) for index in range(len(shards))):
            raise DataError(
                f"{shards.where(0)}: no caption (.txt or .json), nor in any other sample; "
                "give image-caption shards, or add the files"
            )

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

    def captions(self, index: int) -> tuple[str, ...]:
        """All captions of one sample, in stored order; empty where it has none."""
        return read_captions(self.shards.read(index), max_characters=self.max_characters).texts

    def train_example(self, index: int, *, seed: int, epoch: int) -> Example:
        """The image under this epoch's crop, with this epoch's caption."""
        files = self.shards.read(index)
        reading = self._reading(files, index)
        sample_id = int(self.sample_ids[index])
        choice = int(draws(seed, epoch, sample_id, CAPTION_STREAM, 1)[0] * len(reading.captions))
        example = self.images.train_example_of(files, index, seed=seed, epoch=epoch)
        return _captioned(example, reading, choice)

    def val_example(self, index: int) -> Example:
        """The image under the centre crop, with its first caption and all of them."""
        files = self.shards.read(index)
        reading = self._reading(files, index)
        first = _captioned(self.images.val_example_of(files, index), reading, 0)
        return replace(first, all_captions=reading.texts)

    def _reading(self, files: Mapping[str, bytes], index: int) -> CaptionReading:
        reading = read_captions(files, max_characters=self.max_characters)
        if not reading.captions:
            raise DataError(f"{self.shards.where(index)}: {reading.problem}")
        return reading


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionReport:
    """What the captions of some samples are like."""

    num_samples: int
    """Samples that were read."""
    missing: tuple[str, ...]
    """Shard and key of every sample without a usable caption."""
    counts: CaptionCounts
    """Over all captions of all samples, not one per sample as training shows them."""
    num_distinct: int
    """Different texts; far fewer than captions means that identical ones have to count as hits in retrieval."""
    longest: int
    """Characters of the longest caption, after cleaning and cutting."""


def inspect_captions(shards: Samples, *, max_characters: int = MAX_CHARACTERS) -> CaptionReport:
    """Read the captions of every sample; no image is decoded.

    Raises:
        DataError: a shard can no longer be read.
        ConfigError: `max_characters` is not positive.
    """
    missing: list[str] = []
    counts, texts = CaptionCounts(), set[str]()
    for index in range(len(shards)):
        reading = read_captions(shards.read(index), max_characters=max_characters)
        if not reading.captions:
            missing.append(shards.where(index))
        counts += CaptionCounts(
            shown=len(reading.captions),
            repaired=len(reading.captions) if reading.repaired else 0,
            cleaned=sum(caption.cleaned for caption in reading.captions),
            cut=sum(caption.cut for caption in reading.captions),
            dropped=reading.dropped,
        )
        texts.update(reading.texts)
    return CaptionReport(
        num_samples=len(shards),
        missing=tuple(missing),
        counts=counts,
        num_distinct=len(texts),
        longest=max((len(text) for text in texts), default=0),
    )


def _captioned(example: Example, reading: CaptionReading, choice: int) -> Example:
    return Example(example.image, example.sample_id, reading.captions[choice].text, reading.counts_of(choice))
