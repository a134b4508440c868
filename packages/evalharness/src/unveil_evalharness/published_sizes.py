"""How large the data sets of the published protocols are, as those who made them say; for expectations, not for checks.

A set of another size is evaluated as well: what was really there is in every result row (`n` and the data hash).
"""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["PUBLISHED_SIZES"]

_IMAGENET = "ImageNet-1K: 1,281,167 training and 50,000 validation images"

PUBLISHED_SIZES: Mapping[str, str] = MappingProxyType(
    {
        "imagenet_ft": _IMAGENET,
        "linear_probe": _IMAGENET,
        "knn": _IMAGENET,
        "coco_det": "COCO 2017: 118,287 training and 5,000 validation images",
        "ade20k_seg": "ADE20K: 20,210 training and 2,000 validation images",
        "zs_retrieval": "any captioned images",
        "zs_retrieval_coco": "COCO Karpathy test: 5,000 images, 25,010 captions",
        "zs_retrieval_flickr30k": "Flickr30k Karpathy test: 1,000 images, 5,000 captions",
        "zs_classification": "ImageNet-1K: 50,000 validation images",
        "zs_classification_80": "ImageNet-1K: 50,000 validation images",
        "zs_imagenet_v2": "ImageNet-V2: 10,000 images",
        "zs_imagenet_a": "ImageNet-A: 7,500 images of 200 classes",
        "zs_imagenet_r": "ImageNet-R: 30,000 images of 200 classes",
        "zs_imagenet_sketch": "ImageNet-Sketch: 50,889 images",
        "zs_objectnet": "ObjectNet: the images of the 113 classes that ImageNet has, of 50,000",
        "val_loss": "any images; those of ImageNet-1K's validation set unless others are named",
    }
)
"""By task; tasks of the user's own are not in it."""
