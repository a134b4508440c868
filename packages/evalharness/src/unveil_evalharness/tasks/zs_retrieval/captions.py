"""The captions of a set in reading order: the image each was written for and the number of its text."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from unveil_evalharness.tasks.zs_retrieval.data import CaptionedImage

__all__ = ["CaptionIndex", "collect"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionIndex:
    """Grows while images stream past, so that encoded images need not be kept."""

    image_keys: list[str]
    image: list[int]
    """Image of each caption."""
    text: list[int]
    """Text of each caption: captions with the same words share a number, given by first appearance."""
    numbers: dict[str, int]
    """Number of each distinct text."""

    @classmethod
    def empty(cls) -> "CaptionIndex":
        """No image yet."""
        return cls(image_keys=[], image=[], text=[], numbers={})

    @property
    def texts(self) -> list[str]:
        """The distinct texts by number."""
        return list(self.numbers)

    @property
    def image_of_caption(self) -> Int[np.ndarray, " c"]:
        """Image of each caption."""
        return np.array(self.image, dtype=np.int64)

    @property
    def text_of_caption(self) -> Int[np.ndarray, " c"]:
        """Text of each caption."""
        return np.array(self.text, dtype=np.int64)

    @property
    def num_captions(self) -> dict[str, int]:
        """Number of captions by image key."""
        counts = np.bincount(self.image_of_caption, minlength=len(self.image_keys))
        return dict(zip(self.image_keys, counts.tolist(), strict=True))

    @property
    def caption_keys(self) -> list[str]:
        """A name for each caption: its image's key and its number there, from 0."""
        starts = np.searchsorted(self.image_of_caption, np.arange(len(self.image_keys)))
        return [f"{self.image_keys[i]}#{number - starts[i]}" for number, i in enumerate(self.image)]


def collect(images: Iterator[CaptionedImage], index: CaptionIndex) -> Iterator[CaptionedImage]:
    """Passes images through and notes their captions in `index`."""
    for image in images:
        for caption in image.captions:
            index.image.append(len(index.image_keys))
            index.text.append(index.numbers.setdefault(caption, len(index.numbers)))
        index.image_keys.append(image.key)
        yield image
