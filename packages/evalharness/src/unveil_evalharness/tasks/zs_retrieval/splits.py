"""Which published test split a set of captioned images is, told by its image identifiers and by nothing else.

A number of 5,000 images alone says nothing: COCO's val2017 has as many as Karpathy's test split of COCO and shares few
of them, and recalls on the two differ. So a set is called by a published name only when its images are exactly those.

The digests are over lists that others keep beside their code: COCO's from ``data/coco_splits/karpathy_test_images.txt``
of peteanderson80/Up-Down-Captioner; Flickr30k's from ``data/task1/image_splits/test_2016_flickr.txt`` of
multi30k/dataset, whose parts have the sizes of Karpathy's (29,000, 1,014 and 1,000 images).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["COCO_5K", "FLICKR30K_1K", "KnownSplit", "identifiers_digest", "recognise"]

_CAPTIONS_EACH = 5
_IDENTIFIER = re.compile(r"(?:COCO_(?:train|val)2014_)?0*([1-9]\d*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownSplit:
    """A published test split."""

    title: str
    """What tables and `evalharness doctor` call it."""
    num_images: int
    digest: str
    """`identifiers_digest` of its images."""


COCO_5K = KnownSplit(title="COCO Karpathy test (5K)", num_images=5000, digest="b4f15b295a1855a8")
FLICKR30K_1K = KnownSplit(title="Flickr30k Karpathy test (1K)", num_images=1000, digest="3561ef20c1ce29ad")


def identifiers_digest(names: Mapping[str, int]) -> str | None:
    """16 hex digits of the SHA-256 over the images' sorted numbers, one a line; None if a name holds no such number.

    Args:
        names: image names without suffix, such as ``COCO_val2014_000000391895``, ``000000391895`` or ``1007129816``.
    """
    found = [_IDENTIFIER.fullmatch(name) for name in names]
    numbers = {match[1] for match in found if match is not None}
    if len(numbers) != len(names):
        return None
    return hashlib.sha256("\n".join(sorted(numbers)).encode()).hexdigest()[:16]


def recognise(num_captions: Mapping[str, int]) -> KnownSplit | None:
    """The published split that these images are, with all of their captions; None for any other set.

    Args:
        num_captions: number of captions by image name; both sets have at least five for each image.
    """
    if not num_captions or min(num_captions.values()) < _CAPTIONS_EACH:
        return None
    digest = identifiers_digest(num_captions)
    return next((split for split in (COCO_5K, FLICKR30K_1K) if split.digest == digest), None)
