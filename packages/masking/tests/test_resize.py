"""Image reduction by resizing: its counts by hand and by search, its pixels against torch and Pillow."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unveil_masking import Grid, RandomMask, RatioError, ResizeReduction, TokenShapeError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("grid", "ratio", "expected"),
    [
        (Grid(14, 14), 0.75, Grid(7, 7)),  # 224 → 112 pixels: 49 tokens, as a mask of 0.75 keeps
        (Grid(14, 14), 0.5, Grid(9, 9)),  # 81 of at most 98; 10 × 10 would be 100
        (Grid(14, 14), 0, Grid(14, 14)),
        (Grid(16, 16), 0.75, Grid(8, 8)),
        (Grid(24, 12), 0.75, Grid(12, 6)),
        (Grid(7, 5), 0.5, Grid(5, 3)),  # 15 of at most 17, at scale 5/7; at 4/5 it would be 5 × 4 = 20
        (Grid(1, 100), 0.9, Grid(1, 10)),
        (Grid(14, 14, 8), 0.75, Grid(7, 7, 8)),
    ],
)
def test_grids_by_hand(grid, ratio, expected):
    reduction = ResizeReduction(ratio)
    assert reduction.grid(grid) == expected
    assert reduction.num_tokens(grid) == expected.num
    assert reduction.realised_ratio(grid) == 1 - expected.num / grid.num


@given(rows=st.integers(1, 24), cols=st.integers(1, 24), percent=st.integers(0, 99))
def test_the_grid_is_the_largest_at_one_scale_within_the_count_of_the_mask(rows, cols, percent):
    grid, ratio = Grid(rows, cols), percent / 100
    try:
        allowed = grid.num - RandomMask(ratio).num_hidden(grid)
    except RatioError:
        with pytest.raises(RatioError, match="one must stay"):
            ResizeReduction(ratio).grid(grid)
        return
    small = ResizeReduction(ratio).grid(grid)
    assert 1 <= small.num <= allowed
    scales = (scale / (rows * cols) for scale in range(1, rows * cols + 1))  # all multiples of 1/rows and 1/cols
    sizes = [max(int(rows * s + 1e-9), 1) * max(int(cols * s + 1e-9), 1) for s in scales]
    assert small.num == max(size for size in sizes if size <= allowed)
    if min(small.rows, small.cols) > 1:  # the aspect is kept to within a token a side
        assert small.rows * cols - small.cols * rows < rows
        assert small.cols * rows - small.rows * cols < cols


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "ratio"), [(224, 224, 0.75), (224, 224, 0.5), (96, 160, 0.6), (64, 64, 0)])
def test_pixels_are_those_of_torch(kernel, height, width, ratio):
    torch = pytest.importorskip("torch")
    images = RNG.normal(size=(2, 3, height, width))
    ours = ResizeReduction(ratio, kernel).resize(images, 16)
    theirs = torch.nn.functional.interpolate(torch.tensor(images), size=ours.shape[2:], mode=kernel, antialias=True)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-12)
    single = ResizeReduction(ratio, kernel).resize(torch.tensor(images, dtype=torch.float32), 16)
    np.testing.assert_allclose(single.numpy(), theirs.numpy(), atol=2e-5)
    if ratio:  # without antialiasing, or with the other filter, pixels are far off: the check can fail
        for mode, smooth in ((kernel, False), ({"bilinear": "bicubic"}.get(kernel, "bilinear"), True)):
            other = torch.nn.functional.interpolate(
                torch.tensor(images), size=ours.shape[2:], mode=mode, antialias=smooth
            )
            assert np.abs(ours - other.numpy()).max() > 0.1


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_pixels_are_those_of_pillow(kernel):
    image = pytest.importorskip("PIL.Image")
    pixels = RNG.random((112, 80)).astype(np.float32)
    ours = ResizeReduction(0.6, kernel).resize(pixels[None, None], 16)[0, 0]
    method = {"bilinear": image.Resampling.BILINEAR, "bicubic": image.Resampling.BICUBIC}[kernel]
    theirs = np.asarray(image.fromarray(pixels).resize(ours.shape[::-1], method))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_numpy_and_torch_agree_to_rounding_and_gradients_flow():
    torch = pytest.importorskip("torch")
    images = RNG.normal(size=(2, 3, 64, 96)).astype(np.float32)
    reduction = ResizeReduction(0.75)
    there = torch.tensor(images, requires_grad=True)
    ours = reduction.resize(there, 8)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.detach().numpy(), reduction.resize(images, 8), atol=1e-5)
    ours.sum().backward()
    # Rows of the weights sum to 1, so a pixel's gradients sum to the number of pixels made.
    assert there.grad.sum().item() == pytest.approx(ours.numel(), rel=1e-5)
    half = reduction.resize(there.detach().bfloat16(), 8)
    assert half.dtype == torch.bfloat16
    np.testing.assert_allclose(half.float().numpy(), ours.detach().numpy(), atol=0.05)


@given(height=st.integers(1, 6), width=st.integers(1, 6), percent=st.integers(0, 80), value=st.floats(-5, 5))
def test_a_constant_image_stays_constant(height, width, percent, value):
    images = np.full((1, 1, height * 4, width * 4), value)
    try:
        small = ResizeReduction(percent / 100).resize(images, 4)
    except RatioError:
        return
    np.testing.assert_allclose(small, value, atol=1e-12)


def test_ratio_zero_is_the_identity():
    images = RNG.normal(size=(1, 2, 32, 48))
    np.testing.assert_allclose(ResizeReduction(0).resize(images, 16), images, atol=1e-15)


def test_illegal_input_is_named():
    for bad in (1, -0.1, True, "half"):
        with pytest.raises(RatioError, match=r"not a number in \[0, 1\)"):
            ResizeReduction(bad)
    with pytest.raises(RatioError, match="Allowed: bilinear, bicubic"):
        ResizeReduction(0.5, "lanczos")
    with pytest.raises(RatioError, match="one must stay"):
        ResizeReduction(0.9).grid(Grid(2, 2))
    with pytest.raises(TokenShapeError, match=r"does not tile images of 30×32 pixels.*divisor of 2"):
        ResizeReduction(0.5).resize(np.zeros((1, 3, 30, 32)), 16)
    for bad in (np.zeros((3, 32, 32)), np.zeros((1, 3, 32, 32), dtype=np.uint8), [[1.0]]):
        with pytest.raises(TokenShapeError, match=r"Give float images \[b, c, h, w\]"):
            ResizeReduction(0.5).resize(bad, 16)


def test_a_reduction_is_a_value_with_a_json_record():
    reduction = ResizeReduction(0.75)
    assert reduction == ResizeReduction(0.75, "bicubic", "floor_keep")
    assert json.loads(json.dumps(reduction.describe())) == {
        "strategy": "resize",
        "ratio": 0.75,
        "rounding": "floor_keep",
        "filter": "bicubic",
    }
