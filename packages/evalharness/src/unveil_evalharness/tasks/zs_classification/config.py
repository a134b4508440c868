"""The zero-shot protocols: FLIP's prompts for every data set."""

from dataclasses import dataclass
from typing import Literal

from unveil_evalharness.errors import ProtocolError, UnknownSuiteError
from unveil_evalharness.task import SUITES

__all__ = ["DataSet", "Prompts", "ZeroShotProtocol", "protocol_for"]

DataSet = Literal["folder", "imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch", "objectnet"]
"""``folder`` is ``imagenet/val``: ImageNet itself, or any image folder of the user's."""

Prompts = Literal["clip_7", "clip_80", "class_name"]
"""CLIP's seven or eighty templates as open_clip carries them, or the class name alone."""

_QUICK_IMAGES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class ZeroShotProtocol:
    """Everything that defines the numbers besides checkpoint and data.

    An image is given the class whose vector has the largest cosine with its embedding; of equal ones the first class.
    """

    data_set: DataSet
    prompts: Prompts
    """A ``templates.txt`` beside the user's own images takes their place; its text is part of the data hash."""
    ensemble: Literal["mean_of_unit_vectors"] = "mean_of_unit_vectors"
    """A class vector is the mean of the unit vectors of its prompts, scaled to length 1 again."""
    classes: Literal["of_the_data_set"] = "of_the_data_set"
    """An image may only be given a class the data set has: 200 of ImageNet's for ImageNet-A and -R, as published."""
    border: int = 0
    """Pixels cut from every edge of an image before anything else; ObjectNet's photographs have a red frame of 2."""
    max_images: int | None = None
    """At most so many images, class by class in turn; None: all."""

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense."""
        if self.border < 0 or (self.max_images is not None and self.max_images < 1):
            raise ProtocolError(
                f"border is {self.border} and max_images {self.max_images}; they are at least 0 and at least 1"
            )


def protocol_for(suite: str, data_set: DataSet, prompts: Prompts) -> ZeroShotProtocol:
    """The protocol of a suite: ``quick`` takes 1,000 images, the others all.

    Raises:
        UnknownSuiteError: for any name but those of `SUITES`.
    """
    if suite not in SUITES:
        raise UnknownSuiteError(f"zs_classification has no suite {suite!r}; use one of {', '.join(SUITES)}")
    return ZeroShotProtocol(
        data_set=data_set,
        prompts=prompts,
        border=2 if data_set == "objectnet" else 0,
        max_images=_QUICK_IMAGES if suite == "quick" else None,
    )
