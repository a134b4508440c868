"""What masked image modelling predicts: raw pixels, or pixels normalised by their surroundings.

* `normalise_by_window`: each pixel minus the mean of the window around it, over that window's standard deviation
  (SimMIM's NORM_TARGET, window 47: arXiv:2206.04664, as in the released SwinV2 configurations).
* `normalise_patches`: each patch minus its mean, over its standard deviation (MAE, arXiv:2111.06377, section 3).

Shapes: b images, c channels, h × w pixels, n patches of p values.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from unveil_pretrain.errors import ConfigError

__all__ = ["normalise_by_window", "normalise_patches", "patchify"]

_EPSILON = 1e-6


def normalise_by_window(images: Float[Tensor, "b c h w"], window: int) -> Float[Tensor, "b c h w"]:
    """Normalise each pixel by the mean and unbiased variance of the `window` × `window` pixels around it.

    Near a border only the pixels inside the image count. Box sums come from running sums in float64, so the cost does
    not grow with the window and a large flat area does not lose its variance to cancellation.

    Args:
        images: Images or any maps; each channel is normalised by itself.
        window: Odd side of the window in pixels, at least 3.

    Raises:
        ConfigError: the window is even or too small.
    """
    if window < 3 or window % 2 == 0:
        raise ConfigError(f"the target window is {window} pixels; give an odd number of at least 3, for example 47")
    values = images.double()
    count = _box_sum(torch.ones_like(values[:1, :1]), window)
    mean = _box_sum(values, window) / count
    square_mean = _box_sum(values.square(), window) / count
    variance = (square_mean - mean.square()).clamp(min=0.0) * count / (count - 1.0)
    return ((values - mean) / (variance + _EPSILON).sqrt()).to(images.dtype)


def patchify(images: Float[Tensor, "b c h w"], patch_size: int) -> Float[Tensor, "b n p"]:
    """Cut images into patches in row-major order; p = patch_size² · c values, channel fastest."""
    batch, channels, height, width = images.shape
    rows, cols = height // patch_size, width // patch_size
    split = images.reshape(batch, channels, rows, patch_size, cols, patch_size)
    return split.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * cols, patch_size * patch_size * channels)


def normalise_patches(patches: Float[Tensor, "b n p"]) -> Float[Tensor, "b n p"]:
    """Normalise each patch by its own mean and unbiased variance over all its values."""
    mean = patches.mean(dim=-1, keepdim=True)
    variance = patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (variance + _EPSILON).sqrt()


def _box_sum(values: Tensor, window: int) -> Tensor:
    """Sum over the window around each pixel, cut at the borders: [b, c, h, w] → [b, c, h, w]."""
    rows = _running_window(values.transpose(-1, -2), window // 2).transpose(-1, -2)
    return _running_window(rows, window // 2)


def _running_window(values: Tensor, radius: int) -> Tensor:
    """Sum of the 2 · radius + 1 values around each place of the last axis, cut at the ends."""
    length = values.shape[-1]
    sums = F.pad(values.cumsum(dim=-1), (1, 0))
    place = torch.arange(length, device=values.device)
    return sums[..., (place + radius + 1).clamp(max=length)] - sums[..., (place - radius).clamp(min=0)]
