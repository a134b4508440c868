"""RoIAlign (He et al. 2017, Mask R-CNN) with average pooling, forward and backward.

Every output bin is the mean of bilinear samples on a regular grid inside it. Bilinear interpolation, its border
rule and a regular grid all factorise over the two axes, so without compiled kernels the whole operator is two
small matrix products per region, ``rows @ feature @ columns.T``, exact up to the order of summation; the
gradient is the transposed product.

Shape legend: b images, c channels, h w feature size, r regions, p q output rows and columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unveil_evalharness.compat.kernels import at_least_float32, torchvision_kernels
from unveil_evalharness.errors import HarnessError

__all__ = ["PoolModeError", "roi_align_backward", "roi_align_forward"]

_AVERAGE = 1
_FEW_REGIONS = 4  # per image
_REGIONS_AT_ONCE = 64  # bounds the intermediate [r, c, p, w] tensor


class PoolModeError(HarnessError, NotImplementedError):
    """RoIAlign was asked for maximum pooling."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Geometry:
    """What maps a region to its sampling grid."""

    rows: int
    columns: int
    spatial_scale: float
    sampling_ratio: int
    aligned: bool

    def axes(self, rois: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Sampling matrices ``[r, p, h]`` and ``[r, q, w]`` of regions ``[r, 5]``."""
        corners = rois[:, 1:] * self.spatial_scale - (0.5 if self.aligned else 0.0)
        size = corners[:, 2:] - corners[:, :2]
        if not self.aligned:
            size = size.clamp(min=1.0)
        return (
            _sampling_matrix(corners[:, 1], size[:, 1], self.rows, self.sampling_ratio, height),
            _sampling_matrix(corners[:, 0], size[:, 0], self.columns, self.sampling_ratio, width),
        )


def roi_align_forward(
    input: Float[Tensor, "b c h w"],
    rois: Float[Tensor, "r 5"],
    output: Float[Tensor, "r c p q"],
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Writes the pooled regions to `output`.

    Args:
        input: feature maps.
        rois: image index and box ``(x1, y1, x2, y2)`` in image pixels.
        output: receives the result.
        argmax_y: unused, belongs to maximum pooling.
        argmax_x: unused, belongs to maximum pooling.
        aligned_height: p.
        aligned_width: q.
        spatial_scale: feature pixels per image pixel.
        sampling_ratio: samples per bin and axis; 0: ``ceil(region / bins)``.
        pool_mode: 1 (average).
        aligned: shift by half a pixel (the corrected version) and allow regions smaller than one pixel.

    Raises:
        PoolModeError: `pool_mode` is not 1.
    """
    _require_average(pool_mode)
    if rois.shape[0] == 0:
        return
    features = at_least_float32(input)
    regions = rois.to(features.dtype)
    kernels = torchvision_kernels()
    if kernels is not None:
        output.copy_(
            kernels.roi_align(
                features, regions, float(spatial_scale), aligned_height, aligned_width, sampling_ratio, aligned
            )
        )
        return
    geometry = _Geometry(
        rows=aligned_height, columns=aligned_width, spatial_scale=spatial_scale, sampling_ratio=sampling_ratio,
        aligned=aligned,
    )  # fmt: skip
    for image, chosen in _batches(regions, num_images=features.shape[0]):
        rows, columns = geometry.axes(regions[chosen], *features.shape[-2:])
        equation = "rph,chw->rcpw" if isinstance(image, int) else "rph,rchw->rcpw"
        over_rows = torch.einsum(equation, rows, features[image])
        output[chosen] = torch.einsum("rcpw,rqw->rcpq", over_rows, columns).to(output.dtype)


def roi_align_backward(
    grad_output: Float[Tensor, "r c p q"],
    rois: Float[Tensor, "r 5"],
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Float[Tensor, "b c h w"],
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Writes the gradient with respect to the feature maps to `grad_input`; arguments as in `roi_align_forward`.

    Raises:
        PoolModeError: `pool_mode` is not 1.
    """
    _require_average(pool_mode)
    if rois.shape[0] == 0:
        return
    gradient = at_least_float32(grad_output)
    regions = rois.to(gradient.dtype)
    kernels = torchvision_kernels()
    if kernels is not None:
        grad_input.copy_(
            kernels._roi_align_backward(
                gradient, regions, float(spatial_scale), aligned_height, aligned_width, *grad_input.shape,
                sampling_ratio, aligned,
            )
        )  # fmt: skip
        return
    geometry = _Geometry(
        rows=aligned_height, columns=aligned_width, spatial_scale=spatial_scale, sampling_ratio=sampling_ratio,
        aligned=aligned,
    )  # fmt: skip
    total = torch.zeros_like(grad_input, dtype=gradient.dtype)
    for image, chosen in _batches(regions, num_images=total.shape[0]):
        rows, columns = geometry.axes(regions[chosen], *grad_input.shape[-2:])
        over_columns = torch.einsum("rcpq,rqw->rcpw", gradient[chosen], columns)
        if isinstance(image, int):
            total[image] += torch.einsum("rph,rcpw->chw", rows, over_columns)
        else:
            total.index_add_(0, image, torch.einsum("rph,rcpw->rchw", rows, over_columns))
    grad_input.copy_(total)


def _require_average(pool_mode: int) -> None:
    if pool_mode != _AVERAGE:
        raise PoolModeError(
            'RoIAlign with pool_mode="max" was asked for, only "avg" is offered without a compiled mmcv; '
            'set pool_mode="avg" or install a compiled mmcv 2.1'
        )


def _batches(rois: Tensor, *, num_images: int) -> Iterator[tuple[int | Tensor, Tensor]]:
    """Parts of the regions: their image (one for all, or one each) and their positions.

    One image at a time avoids copying feature maps, but costs a step per image: where there are few regions per
    image (mask targets have one region each on as many "images"), feature maps are gathered instead.
    """
    images = rois[:, 0].long()
    if len(rois) < _FEW_REGIONS * num_images:
        for chosen in torch.arange(len(rois), device=rois.device).split(_REGIONS_AT_ONCE):
            yield images[chosen], chosen
        return
    for image in images.unique().tolist():
        for chosen in (images == image).nonzero().flatten().split(_REGIONS_AT_ONCE):
            yield image, chosen


def _sampling_matrix(start: Tensor, size: Tensor, bins: int, sampling_ratio: int, length: int) -> Tensor:
    """Weights ``[r, bins, length]`` with which the pixels of one axis enter each bin.

    Args:
        start: ``[r]`` where the region begins, in pixels.
        size: ``[r]`` its length.
        bins: output bins along the axis.
        sampling_ratio: samples per bin; 0: ``ceil(size / bins)``, which differs between regions.
        length: pixels along the axis.
    """
    bin_size = size / bins
    samples = torch.full_like(bin_size, sampling_ratio) if sampling_ratio > 0 else bin_size.ceil().clamp(min=0)
    steps = torch.arange(int(samples.max().clamp(min=1)), device=start.device, dtype=start.dtype)
    fraction = (steps + 0.5) / samples.clamp(min=1)[:, None]
    position = torch.arange(bins, device=start.device, dtype=start.dtype)[None, :, None] + fraction[:, None, :]
    position = start[:, None, None] + position * bin_size[:, None, None]
    # Samples more than one pixel outside count as zero; samples on the rim take the border pixel.
    used = (steps < samples[:, None])[:, None, :] & (position >= -1) & (position <= length)
    weight = used.to(start.dtype) / samples.clamp(min=1)[:, None, None]
    position = position.clamp(min=0, max=length - 1)
    low = position.floor()
    share = position - low
    low = low.long()
    matrix = start.new_zeros(*position.shape[:2], length)
    matrix.scatter_add_(2, low, weight * (1 - share))
    matrix.scatter_add_(2, (low + 1).clamp(max=length - 1), weight * share)
    return matrix
