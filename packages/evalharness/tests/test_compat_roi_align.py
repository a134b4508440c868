"""RoIAlign against hand-computed values, a direct definition, numerical gradients and torchvision."""

import math

import pytest
import torch
import unveil_backbones
from unveil_evalharness.compat import roi_align
from unveil_evalharness.compat.kernels import torchvision_kernels

NONE = torch.empty(0)


@pytest.fixture(params=["plain", "torchvision"])
def backend(request, monkeypatch):
    """Runs a test on plain PyTorch, and again on torchvision's operators where they load."""
    unveil_backbones.ensure_torchvision()
    if request.param == "plain":
        monkeypatch.setattr(roi_align, "torchvision_kernels", lambda: None)
    elif torchvision_kernels() is None:
        pytest.skip("torchvision's compiled operators do not load beside this torch")
    return request.param


def pool(features, rois, *, size=(2, 2), scale=1.0, ratio=0, aligned=True):
    output = features.new_zeros(len(rois), features.shape[1], *size)
    roi_align.roi_align_forward(features, rois, output, NONE, NONE, *size, scale, ratio, 1, aligned)
    return output


class Pooled(torch.autograd.Function):
    """The pair of operators as autograd sees it, the way ``mmcv.ops.roi_align`` joins them."""

    @staticmethod
    def forward(ctx, features, rois, size, scale, ratio, aligned):
        ctx.save_for_backward(rois)
        ctx.rest = features.shape, size, scale, ratio, aligned
        return pool(features, rois, size=size, scale=scale, ratio=ratio, aligned=aligned)

    @staticmethod
    def backward(ctx, gradient):
        shape, size, scale, ratio, aligned = ctx.rest
        result = gradient.new_zeros(shape)
        roi_align.roi_align_backward(
            gradient.contiguous(), ctx.saved_tensors[0], NONE, NONE, result, *size, scale, ratio, 1, aligned
        )
        return result, None, None, None, None, None


def sample(plane, y, x):
    """One bilinear sample with RoIAlign's border rule, written from its definition."""
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    return float(
        plane[top, left] * (1 - dy) * (1 - dx) + plane[top, right] * (1 - dy) * dx
        + plane[bottom, left] * dy * (1 - dx) + plane[bottom, right] * dy * dx
    )  # fmt: skip


def defined(features, rois, *, size, scale, ratio, aligned):
    """RoIAlign by its definition, one sample at a time."""
    output = torch.zeros(len(rois), features.shape[1], *size, dtype=features.dtype)
    for number, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (value * scale - (0.5 if aligned else 0.0) for value in box)
        width, height = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1.0), max(y2 - y1, 1.0))
        bin_height, bin_width = height / size[0], width / size[1]
        rows, columns = (ratio, ratio) if ratio > 0 else (math.ceil(bin_height), math.ceil(bin_width))
        for channel in range(features.shape[1]):
            for p in range(size[0]):
                for q in range(size[1]):
                    values = [
                        sample(
                            features[int(image), channel],
                            y1 + (p + (i + 0.5) / rows) * bin_height,
                            x1 + (q + (j + 0.5) / columns) * bin_width,
                        )
                        for i in range(rows)
                        for j in range(columns)
                    ]
                    output[number, channel, p, q] = sum(values) / max(len(values), 1)
    return output


def test_whole_map_is_averaged_by_hand(backend):
    # Pixel centres sit at half-integers: the box 0…4 covers the map; each 2 × 2 bin averages its four pixels.
    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    result = pool(features, torch.tensor([[0.0, 0, 0, 4, 4]]), ratio=2)
    assert result.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


def test_single_sample_is_bilinear_by_hand(backend):
    # One sample at the middle (1.0, 1.0) of the box 1…2 in the unaligned convention at (1.5, 1.5): mean of 5, 6, 9, 10.
    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    result = pool(features, torch.tensor([[0.0, 1, 1, 2, 2]]), size=(1, 1), ratio=1, aligned=False)
    assert result.item() == 7.5
    # The aligned convention shifts by half a pixel, onto pixel (1, 1) itself.
    assert pool(features, torch.tensor([[0.0, 1, 1, 2, 2]]), size=(1, 1), ratio=1).item() == 5.0


ROIS = torch.tensor(
    [
        [0, 0.0, 0.0, 7.3, 5.1],
        [1, 2.2, 1.7, 12.4, 9.9],
        [1, -3.0, -2.0, 3.0, 4.0],  # hangs over the upper left corner
        [0, 10.0, 8.0, 21.0, 19.0],  # hangs over the lower right corner
        [1, 5.0, 5.0, 5.2, 5.1],  # smaller than a pixel
        [0, 30.0, 30.0, 40.0, 40.0],  # outside
        [1, 4.0, 4.0, 4.0, 4.0],  # without area
    ],
    dtype=torch.float64,
)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 3])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_equals_the_definition(backend, aligned, ratio, scale):
    features = torch.randn(2, 3, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = defined(features, ROIS, size=(3, 2), scale=scale, ratio=ratio, aligned=aligned)
    result = pool(features, ROIS, size=(3, 2), scale=scale, ratio=ratio, aligned=aligned)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_gathered_and_per_image_paths_agree(monkeypatch):
    unveil_backbones.ensure_torchvision()
    monkeypatch.setattr(roi_align, "torchvision_kernels", lambda: None)
    features = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    gradient = torch.randn(len(ROIS), 3, 2, 2, dtype=torch.float64)
    results = []
    for few in (0, 100):
        monkeypatch.setattr(roi_align, "_FEW_REGIONS", few)
        back = torch.zeros_like(features)
        roi_align.roi_align_backward(gradient, ROIS, NONE, NONE, back, 2, 2, 1.0, 0, 1, True)
        results.append((pool(features, ROIS), back))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_gradient_is_the_numerical_one(backend, aligned, ratio):
    features = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = ROIS[[0, 2, 3, 4]] * torch.tensor([1, 0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda value: Pooled.apply(value, rois, (2, 3), 1.0, ratio, aligned), (features,), raise_exception=True
    )


def test_half_precision_is_computed_in_float32(backend):
    features = torch.randn(2, 3, 9, 11)
    result = pool(features.bfloat16(), ROIS.bfloat16())
    expected = pool(features.bfloat16().float(), ROIS.bfloat16().float())
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, expected.bfloat16())


def test_no_regions_leave_the_output_alone(backend):
    features = torch.randn(1, 3, 4, 4)
    assert pool(features, torch.empty(0, 5)).shape == (0, 3, 2, 2)
    gradient = torch.zeros_like(features)
    roi_align.roi_align_backward(
        torch.empty(0, 3, 2, 2), torch.empty(0, 5), NONE, NONE, gradient, 2, 2, 1.0, 0, 1, True
    )
    assert gradient.abs().sum() == 0


def test_maximum_pooling_is_refused_by_name():
    with pytest.raises(roi_align.PoolModeError, match='pool_mode="avg"'):
        roi_align.roi_align_forward(
            torch.zeros(1, 1, 4, 4), ROIS.float(), torch.zeros(7, 1, 2, 2), NONE, NONE, 2, 2, 1.0, 0, 0, True
        )


def test_agrees_with_torchvision_where_it_loads(monkeypatch):
    unveil_backbones.ensure_torchvision()
    kernels = torchvision_kernels()
    if kernels is None:
        pytest.skip("torchvision's compiled operators do not load beside this torch")
    features = torch.randn(2, 16, 24, 24)
    low = torch.rand(60, 2) * 60
    rois = torch.cat([torch.randint(0, 2, (60, 1)), low, low + torch.rand(60, 2) * 40], dim=1)
    expected = kernels.roi_align(features, rois, 0.25, 7, 7, 0, True)
    monkeypatch.setattr(roi_align, "torchvision_kernels", lambda: None)
    torch.testing.assert_close(pool(features, rois, size=(7, 7), scale=0.25), expected, rtol=0, atol=1e-4)
