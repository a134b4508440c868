"""What masked image modelling predicts: raw pixels, or pixels normalised by their surroundings.

* `normalise_by_window`: each pixel minus the mean of the window around it, over that window's standard deviation
  (SimMIM's NORM_TARGET, window 47: arXiv:2206.04664, as in the released SwinV2 configurations).
* `normalise_patches`: each patch minus its mean, over its standard deviation (MAE, arXiv:2111.06377, section 3).

Shapes: b images, c channels, h × w pixels, n patches of p values.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int64
from torch import Tensor

from unveil_pretrain.errors import ConfigError

__all__ = ["cut_cells", "normalise_by_window", "normalise_patches", "patchify"]

_EPSILON = 1e-6


def normalise_by_window(
    images: Float[Tensor, "b c h w"], window: int, *, running_sums: bool = True
) -> Float[Tensor, "b c h w"]:
    """Normalise each pixel by the mean and unbiased variance of the `window` × `window` pixels around it.

    Near a border only the pixels inside the image count. Box sums come from running sums in float64, so the cost does
    not grow with the window and a large flat area does not lose its variance to cancellation.

    Args:
        images: Images or any maps; each channel is normalised by itself.
        window: Odd side of the window in pixels, at least 3.
        running_sums: Off, sums come from average pooling, as in the published code: for comparisons.

    Raises:
        ConfigError: the window is even or too small.
    """
    if window < 3 or window % 2 == 0:
        raise ConfigError(f"the target window is {window} pixels; give an odd number of at least 3, for example 47")
    count = _box_counts(images.shape[-2:], window, images.device)
    box_sums = _box_sums if running_sums else _pooled_box_sums
    if images.device.type == "cpu" and len(images):  # image by image, everything stays in the cache
        return torch.stack([_normalised(image, window, count, box_sums) for image in images.unbind()])
    return _normalised(images, window, count, box_sums)


def _normalised(
    images: Float[Tensor, "*_ h w"], window: int, count: Float[Tensor, "h w"], box_sums: Callable[[Tensor, int], Tensor]
) -> Float[Tensor, "*_ h w"]:
    values = images.double()
    mean, variance = box_sums(torch.stack((values, values.square())), window).div_(count)
    variance.addcmul_(mean, mean, value=-1).clamp_(min=0.0).mul_(count / (count - 1.0))
    return (values - mean).div_(variance.add_(_EPSILON).sqrt_()).to(images.dtype)


def cut_cells(images: Float[Tensor, "b c h w"], side: int, wanted: Int64[Tensor, "b m"]) -> Float[Tensor, "b m p"]:
    """Return some squares of an image; p = c · side² values each, channel slowest, as `pixel_shuffle` lays them out."""
    cells = images.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5)
    sample = torch.arange(len(images), device=images.device)[:, None]
    cols = cells.shape[2]
    return cells[sample, wanted // cols, wanted % cols].flatten(2)


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


def _box_counts(size: Sequence[int], window: int, device: torch.device) -> Float[Tensor, "h w"]:
    """Number of pixels of the window around each pixel that lie in the image."""
    sides = [_box_sums_along(torch.ones(side, dtype=torch.float64, device=device), window // 2, 0) for side in size]
    return sides[0][:, None] * sides[1]


def _box_sums(values: Float[Tensor, "*_ h w"], window: int) -> Float[Tensor, "*_ h w"]:
    """Sum over the window around each pixel, cut at the borders."""
    return _box_sums_along(_box_sums_along(values, window // 2, -1), window // 2, -2)


def _box_sums_along(values: Tensor, radius: int, axis: int) -> Tensor:
    """Sum of the 2 · radius + 1 values around each place of an axis, cut at the ends."""
    length = values.shape[axis]
    radius = min(radius, length - 1)
    whole = length - radius - 1  # places whose window does not reach beyond the end
    running = values.cumsum(axis)
    result = torch.empty_like(running)
    result.narrow(axis, 0, whole).copy_(running.narrow(axis, radius, whole))
    result.narrow(axis, whole, length - whole).copy_(running.narrow(axis, length - 1, 1))
    result.narrow(axis, radius + 1, whole).sub_(running.narrow(axis, 0, whole))
    return result


def _pooled_box_sums(values: Tensor, window: int) -> Tensor:
    """`_box_sums` by an average pool, which reads window² values for each pixel."""
    maps = values.reshape(-1, 1, *values.shape[-2:])
    return F.avg_pool2d(maps, window, stride=1, padding=window // 2).view_as(values) * window**2
