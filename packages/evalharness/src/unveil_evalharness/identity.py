"""Which published set some data is, told by what the files themselves say: names of classes, counts, and identifiers.

Rules, all of them needed for a name; a set that fails one is called by its counts alone:

* ImageNet-1K validation: 1,000 classes with WordNet names (``n`` and eight digits), 50 images in each.
* ImageNet-1K training: as many such classes, 1,281,167 images.
* COCO 2017: 80 categories, with 118,287 (train) or 5,000 (val) images.
* ADE20K of the scene-parsing challenge: 150 classes, with 20,210 (training) or 2,000 (validation) images.
* Karpathy's test splits of COCO and Flickr30k: a digest over the identifiers (``zs_retrieval/splits.py``).
"""

import re
from collections.abc import Mapping

__all__ = ["ade20k_title", "coco_title", "imagenet_title"]

_WORDNET = re.compile(r"n\d{8}")
_NUM_TRAIN = 1_281_167
_COCO = {"train2017": 118_287, "val2017": 5_000}
_ADE20K = {"training": 20_210, "validation": 2_000}


def imagenet_title(split: str, counts: Mapping[str, int]) -> str | None:
    """Name of the set with so many images by class, if it is a published one."""
    if len(counts) != 1000 or not all(_WORDNET.fullmatch(name) for name in counts):
        return None
    if split == "val" and set(counts.values()) == {50}:
        return "ImageNet-1K validation"
    return "ImageNet-1K training" if split == "train" and sum(counts.values()) == _NUM_TRAIN else None


def coco_title(split: str, *, num_images: int, num_categories: int) -> str | None:
    """Name of the set of so many images and categories, if it is a published one."""
    return f"COCO {split}" if num_categories == 80 and _COCO.get(split) == num_images else None


def ade20k_title(split: str, *, num_images: int, num_classes: int) -> str | None:
    """Name of the set of so many images and classes, if it is a published one."""
    known = num_classes == 150 and _ADE20K.get(split) == num_images
    return f"ADE20K scene parsing {split}" if known else None
