"""Losses against values worked out by hand."""

import math

import numpy as np
import pytest
import torch
from unveil_pretrain.losses import cell_l1, info_nce, masked_l1, patch_mse


def test_masked_l1_counts_hidden_pixels_of_each_sample_only():
    prediction = torch.zeros(2, 3, 1, 2)
    target = torch.tensor([[[1.0, 9.0]], [[2.0, 9.0]], [[3.0, 9.0]]]).expand(2, 3, 1, 2).clone()
    target[1] = torch.tensor([[[1.0, 4.0]], [[1.0, 4.0]], [[1.0, 4.0]]])
    mask = torch.tensor([[[True, False]], [[True, True]]])
    # First: (1 + 2 + 3) over one pixel and three channels. Second: (3 · 1 + 3 · 4) over two pixels and three channels.
    torch.testing.assert_close(masked_l1(prediction, target, mask), torch.tensor([2.0, 2.5]), rtol=1e-4, atol=0)


def test_masked_l1_mean_is_the_batch_formula_of_simmim():
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 4, 3, 8, 8, generator=generator).unbind()
    mask = torch.zeros(4, 8, 8, dtype=torch.bool)
    for row in range(4):
        mask[row].view(-1)[torch.randperm(64, generator=generator)[:40]] = True
    weights = mask[:, None].float()
    published = ((target - prediction).abs() * weights).sum() / (weights.sum() + 1e-5) / 3
    torch.testing.assert_close(masked_l1(prediction, target, mask).mean(), published)


def test_patch_mse_by_hand():
    prediction = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    target = torch.tensor([[[0.0, 2.0], [3.0, 0.0]]])
    assert patch_mse(prediction, target).tolist() == [(1 + 0 + 9 + 0) / 4]


def test_info_nce_of_two_orthogonal_pairs():
    towers = torch.eye(2)
    expected = math.log(1 + math.exp(-3.0))  # −log(e³ / (e³ + e⁰))
    torch.testing.assert_close(info_nce(towers, towers, torch.tensor(3.0)), torch.full((2,), expected))


def test_info_nce_against_a_softmax_written_out():
    generator = np.random.default_rng(0)
    images, texts = generator.normal(size=(2, 5, 7))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    scale = 14.3
    expected = []
    for pair in range(5):
        to_text = [math.exp(scale * float(images[pair] @ texts[other])) for other in range(5)]
        to_image = [math.exp(scale * float(images[other] @ texts[pair])) for other in range(5)]
        expected.append(-0.5 * (math.log(to_text[pair] / sum(to_text)) + math.log(to_image[pair] / sum(to_image))))
    found = info_nce(torch.from_numpy(images).float(), torch.from_numpy(texts).float(), torch.tensor(scale))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_info_nce_of_equal_embeddings_is_the_logarithm_of_the_pool():
    same = torch.nn.functional.normalize(torch.ones(9, 4), dim=-1)
    assert info_nce(same, same, torch.tensor(10.0)).tolist() == pytest.approx([math.log(9)] * 9)


def test_losses_are_float32_for_bfloat16_predictions():
    low = torch.ones(1, 3, 2, 2, dtype=torch.bfloat16)
    assert masked_l1(low, low.float(), torch.ones(1, 2, 2, dtype=torch.bool)).dtype == torch.float32
    assert patch_mse(low[0], low[0].float()).dtype == torch.float32


def test_the_loss_of_hidden_cells_is_the_masked_loss():
    prediction, target = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8)
    mask = torch.zeros(2, 4, 8, dtype=torch.bool)
    mask[0, :, :4] = mask[1, :, 4:] = True
    cells = [(torch.stack([both[0, :, :, :4], both[1, :, :, 4:]])).flatten(1)[:, None] for both in (prediction, target)]
    torch.testing.assert_close(cell_l1(*cells, channels=3), masked_l1(prediction, target, mask))
