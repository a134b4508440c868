"""Training and test transforms: timm's, with every value given."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

if TYPE_CHECKING:
    import unveil_backbones.specs

__all__ = ["image_size", "test_transform", "training_transform"]

Transform = Callable[[Image.Image], Any]


def image_size(
    side: int | Literal["pretraining"], preprocessing: "unveil_backbones.specs.Preprocessing"
) -> tuple[int, int]:
    """Height and width of the task's images."""
    return preprocessing.image_size if side == "pretraining" else (side, side)


def training_transform(
    preprocessing: "unveil_backbones.specs.Preprocessing",
    *,
    size: tuple[int, int],
    interpolation: str,
    crop_scale: tuple[float, float],
    flip: float,
    colour_jitter: float = 0.0,
    auto_augment: str = "",
    random_erasing: float = 0.0,
) -> Transform:
    """Random resized crop, flip, colour policy, normalisation, erasing; PIL image to tensor [3, h, w].

    Args:
        preprocessing: for mean and standard deviation.
        size: height and width of the result.
        interpolation: resampling filter.
        crop_scale: area of the crop over that of the image.
        flip: probability of a horizontal flip.
        colour_jitter: strength; not used where `auto_augment` is named.
        auto_augment: timm's name of a policy; empty for none.
        random_erasing: probability.
    """
    return _callable(
        _factory()(
            input_size=(3, *size),
            is_training=True,
            scale=crop_scale,
            hflip=flip,
            # timm ignores the jitter where a policy is named, and takes 0 for "none".
            color_jitter=colour_jitter,
            auto_augment=auto_augment or None,
            re_prob=random_erasing,
            re_mode="pixel",
            interpolation=interpolation,
            mean=preprocessing.mean,
            std=preprocessing.std,
        )
    )


def test_transform(
    preprocessing: "unveil_backbones.specs.Preprocessing", *, size: tuple[int, int], crop: float, interpolation: str
) -> Transform:
    """Resize of the shorter side, centre crop, normalisation; PIL image to tensor [3, h, w].

    Args:
        preprocessing: for mean and standard deviation.
        size: height and width of the result.
        crop: side of the crop over the resized shorter side.
        interpolation: resampling filter.
    """
    return _callable(
        _factory()(
            input_size=(3, *size),
            is_training=False,
            crop_pct=crop,
            interpolation=interpolation,
            mean=preprocessing.mean,
            std=preprocessing.std,
        )
    )


def _factory() -> Callable[..., Any]:
    import unveil_backbones

    unveil_backbones.ensure_torchvision()
    from timm.data.transforms_factory import create_transform

    return create_transform


def _callable(transform: Any) -> Transform:
    """Timm's `create_transform` can also return a tuple of three stages, which is not asked for here."""
    assert callable(transform)
    return transform
