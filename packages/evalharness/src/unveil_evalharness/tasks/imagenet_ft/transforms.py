"""Training and test transforms: timm's, with every value from the protocol."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from PIL import Image

from unveil_evalharness.tasks.imagenet_ft.config import ImagenetProtocol

if TYPE_CHECKING:
    import unveil_backbones.specs

__all__ = ["image_size", "test_transform", "training_transform"]

Transform = Callable[[Image.Image], Any]


def image_size(protocol: ImagenetProtocol, preprocessing: "unveil_backbones.specs.Preprocessing") -> tuple[int, int]:
    """Height and width of the task's images."""
    if protocol.image_side == "pretraining":
        return preprocessing.image_size
    return protocol.image_side, protocol.image_side


def training_transform(protocol: ImagenetProtocol, preprocessing: "unveil_backbones.specs.Preprocessing") -> Transform:
    """Random resized crop, flip, colour policy, normalisation, erasing; PIL image to tensor [3, h, w]."""
    from timm.data.transforms_factory import create_transform

    return _callable(
        create_transform(
            input_size=(3, *image_size(protocol, preprocessing)),
            is_training=True,
            scale=protocol.crop_scale,
            hflip=protocol.flip,
            # timm ignores the jitter where a policy is named, and takes 0 for "none".
            color_jitter=protocol.colour_jitter,
            auto_augment=protocol.auto_augment or None,
            re_prob=protocol.random_erasing,
            re_mode="pixel",
            interpolation=protocol.interpolation,
            mean=preprocessing.mean,
            std=preprocessing.std,
        )
    )


def test_transform(protocol: ImagenetProtocol, preprocessing: "unveil_backbones.specs.Preprocessing") -> Transform:
    """Resize of the shorter side, centre crop, normalisation; PIL image to tensor [3, h, w]."""
    from timm.data.transforms_factory import create_transform

    return _callable(
        create_transform(
            input_size=(3, *image_size(protocol, preprocessing)),
            is_training=False,
            crop_pct=protocol.test_crop,
            interpolation=protocol.interpolation,
            mean=preprocessing.mean,
            std=preprocessing.std,
        )
    )


def _callable(transform: Any) -> Transform:
    """Timm's `create_transform` can also return a tuple of three stages, which is not asked for here."""
    assert callable(transform)
    return transform
