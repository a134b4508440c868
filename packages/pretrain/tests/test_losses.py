"""Losses against values worked out by hand."""

import torch
from unveil_pretrain.losses import cell_l1, masked_l1, patch_mse


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
