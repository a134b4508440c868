"""MAE's loss is the reference implementation's, and skipping what it does not read changes nothing."""

import math

import pytest
import torch
from unveil_backbones import VitConfig, VitEncoder
from unveil_masking import Grid, RandomMask
from unveil_masking.partition import Partition, partition_from_mask
from unveil_pretrain.objectives.base import Inputs
from unveil_pretrain.objectives.mae import MAE, MAEDecoder

SIDE = 32
GOLDEN = 1.0744185
"""Loss of the authors' implementation (facebookresearch/mae, models_mae.py, run once on timm 1.0.31 in float32).

Made with the weights, images and masks of `formula_mae`, `formula_images` and `EveryThirdKept` below: img_size 32,
patch_size 8, embed_dim 32, depth 2, num_heads 2, decoder_embed_dim 16, decoder_depth 2, decoder_num_heads 2,
norm_layer LayerNorm(eps=1e-6), norm_pix_loss=True; `random_masking` was given noise that sorts into these masks.
"""


class EveryThirdKept(RandomMask):
    """Keeps the patches whose index plus the sample's is a multiple of three, in a set of fixed size."""

    def sample(self, grid, ids, *, seed, epoch):
        del seed, epoch
        token = torch.arange(grid.num)[None] + torch.arange(len(ids))[:, None]
        keep = torch.sort((token % 3 != 0).long(), dim=1, stable=True).indices[:, : grid.num // 4]
        mask = torch.ones(len(ids), grid.num, dtype=torch.bool).scatter(1, keep, False)
        return partition_from_mask(mask, grid.num // 4, grid)


def formula(shape, index):
    count = math.prod(shape)
    return 0.1 * torch.sin(0.37 * torch.arange(count, dtype=torch.float64) + index).reshape(shape).float()


def formula_images(num=2):
    return formula((num, 3, SIDE, SIDE), 5) * 10


def formula_mae():
    encoder = VitEncoder(VitConfig(image_size=(SIDE, SIDE), patch_size=8, width=32, depth=2, num_heads=2))
    decoder = MAEDecoder(32, width=16, depth=2, heads=2, num_outputs=192)
    mae = MAE(encoder, decoder, EveryThirdKept(0.75), (SIDE, SIDE), normalise_target=True)
    with torch.no_grad():
        for index, (name, parameter) in enumerate(mae.named_parameters()):
            parameter.copy_(formula(parameter.shape, index))
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
    return mae


def inputs(num=2):
    return Inputs(formula_images(num), torch.arange(num), torch.zeros(num, dtype=torch.int64), None)


def run(mae, batch):
    mae.zero_grad()
    loss = mae(batch, seed=0).per_sample
    loss.mean().backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in mae.named_parameters()}


@pytest.mark.parametrize("permuted", [True, False])
def test_the_loss_is_that_of_the_reference(permuted):
    mae = formula_mae()
    mae.set_optimisations(mae.OPTIMISATIONS if permuted else ())
    with torch.no_grad():
        assert mae(inputs(), seed=0).per_sample.mean().item() == pytest.approx(GOLDEN, abs=2e-6)


def test_the_golden_number_would_notice_a_decoder_without_positions():
    mae = formula_mae()
    whole = mae.decoder.forward
    mae.decoder.forward = lambda latent, partition, positions, **rest: whole(
        latent, partition, torch.zeros_like(positions), **rest
    )
    with torch.no_grad():
        assert mae(inputs(), seed=0).per_sample.mean().item() != pytest.approx(GOLDEN, abs=2e-6)


@pytest.mark.parametrize("width", [32, 64])
def test_skipping_what_the_loss_does_not_read_changes_neither_loss_nor_gradients(width):
    torch.manual_seed(0)
    encoder = VitEncoder(VitConfig(image_size=(32, width), patch_size=8, width=32, depth=2, num_heads=2))
    decoder = MAEDecoder(32, width=16, depth=2, heads=2, num_outputs=192)
    mae = MAE(encoder, decoder, RandomMask(0.75), (32, width), normalise_target=True)
    torch.nn.init.normal_(mae.decoder.predict.bias)
    batch = Inputs(torch.randn(3, 3, 32, width), torch.arange(3), torch.zeros(3, dtype=torch.int64), None)
    fast, fast_gradients = run(mae, batch)
    mae.set_optimisations(())
    mae.encoder.set_optimisations(())
    slow, slow_gradients = run(mae, batch)
    torch.testing.assert_close(fast, slow, atol=1e-6, rtol=1e-6)
    for name, gradient in slow_gradients.items():
        torch.testing.assert_close(fast_gradients[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


def test_only_hidden_tokens_are_predicted_and_the_last_block_computes_no_others():
    mae = formula_mae()
    rows = []
    handles = [
        module.register_forward_hook(lambda _, __, output: rows.append(output.shape[1]))
        for module in (mae.decoder.blocks[-1].mlp, mae.decoder.predict)
    ]
    mae(inputs(), seed=0)
    mae.set_optimisations(())
    mae(inputs(), seed=0)
    for handle in handles:
        handle.remove()
    assert rows == [12, 12, 17, 12]


def test_autocast_gives_the_same_loss_up_to_its_precision():
    mae = formula_mae()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mae(inputs(), seed=0).per_sample
    assert loss.dtype == torch.float32
    assert loss.mean().item() == pytest.approx(GOLDEN, rel=0.02)


def test_the_masks_of_the_golden_number_are_what_they_say():
    partition = EveryThirdKept(0.75).sample(Grid(4, 4), torch.arange(2), seed=0, epoch=0)
    assert isinstance(partition, Partition)
    assert partition.keep.tolist() == [[0, 3, 6, 9], [2, 5, 8, 11]]
