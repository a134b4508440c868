"""Targets against loops that follow the definition word for word."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.targets import cut_cells, normalise_by_window, normalise_patches, patchify


def by_definition(image, window):
    """Each pixel over the mean and unbiased variance of the part of its window that lies in the image."""
    radius, (height, width) = window // 2, image.shape
    result = np.empty_like(image)
    for row in range(height):
        for col in range(width):
            part = image[max(0, row - radius) : row + radius + 1, max(0, col - radius) : col + radius + 1]
            result[row, col] = (image[row, col] - part.mean()) / np.sqrt(part.var(ddof=1) + 1e-6)
    return result


@given(height=st.integers(2, 9), width=st.integers(2, 9), radius=st.integers(1, 6), seed=st.integers(0, 2**16))
def test_window_normalisation_is_its_definition(height, width, radius, seed):
    image = np.random.default_rng(seed).normal(size=(height, width))
    found = normalise_by_window(torch.from_numpy(image)[None, None], 2 * radius + 1)
    np.testing.assert_allclose(found[0, 0].numpy(), by_definition(image, 2 * radius + 1), rtol=1e-8, atol=1e-8)


def test_window_of_47_with_three_channels_in_float32():
    images = torch.randn(2, 3, 20, 64, generator=torch.Generator().manual_seed(1))
    found = normalise_by_window(images, 47)
    assert found.dtype == torch.float32
    for sample in range(2):
        for channel in range(3):
            expected = by_definition(images[sample, channel].double().numpy(), 47)
            np.testing.assert_allclose(found[sample, channel].numpy(), expected, atol=2e-6)


def test_equals_the_average_pooling_of_simmim():
    """The published formula, written with average pooling: excluded padding, unbiased variance, epsilon 1e-6."""
    images, window = torch.randn(1, 3, 12, 15, dtype=torch.float64), 7

    def pool(values, *, include):
        return torch.nn.functional.avg_pool2d(values, window, 1, window // 2, count_include_pad=include)

    mean, square = pool(images, include=False), pool(images**2, include=False)
    count = pool(torch.ones_like(images), include=True) * window**2
    variance = ((square - mean**2) * (count / (count - 1))).clamp(min=0)
    torch.testing.assert_close(normalise_by_window(images, window), (images - mean) / (variance + 1e-6) ** 0.5)


def test_a_flat_image_becomes_zero_even_far_from_zero():
    assert normalise_by_window(torch.full((1, 1, 30, 30), 1000.1), 5).abs().max() < 1e-3


@pytest.mark.parametrize("window", [0, 1, 4])
def test_bad_windows_are_refused(window):
    with pytest.raises(ConfigError, match="odd number"):
        normalise_by_window(torch.zeros(1, 1, 4, 4), window)


def test_patches_are_row_major_with_channels_fastest():
    images = torch.arange(2 * 4 * 4).reshape(1, 2, 4, 4).float()  # channel 0: 0..15, channel 1: 16..31
    patches = patchify(images, 2)
    assert patches.shape == (1, 4, 8)
    assert patches[0, 0].tolist() == [0, 16, 1, 17, 4, 20, 5, 21]
    assert patches[0, 1, ::2].tolist() == [2, 3, 6, 7]
    assert patches[0, 2, ::2].tolist() == [8, 9, 12, 13]


def test_patch_normalisation_by_hand():
    found = normalise_patches(torch.tensor([[[1.0, 3.0], [5.0, 5.0]]]))
    half = 1 / np.sqrt(2.0)  # mean 2, unbiased variance 2
    np.testing.assert_allclose(found.numpy(), [[[-half, half], [0.0, 0.0]]], atol=1e-6)


@pytest.mark.parametrize("size", [(12, 15), (5, 40)])
def test_average_pools_instead_of_running_sums_give_the_same(size):
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    for window in (3, 9, 47):
        fast, pooled = (normalise_by_window(images, window, running_sums=switch) for switch in (True, False))
        torch.testing.assert_close(fast, pooled, atol=1e-5, rtol=0)


def test_cells_are_cut_as_pixel_shuffle_lays_them_out():
    values = torch.randn(2, 3 * 16, 2, 5)
    wanted = torch.tensor([[9, 0, 3], [4, 4, 5]])
    images = torch.nn.functional.pixel_shuffle(values, 4)
    expected = torch.take_along_dim(values.flatten(2).transpose(1, 2), wanted[:, :, None], 1)
    assert torch.equal(cut_cells(images, 4, wanted), expected)


def test_no_images_have_no_targets():
    assert normalise_by_window(torch.empty(0, 3, 8, 8), 5).shape == (0, 3, 8, 8)
