"""Objectives on encoders that depend on places (rotary positions) or hide units (Hiera)."""

from dataclasses import replace

import pytest
import torch
from unveil_backbones import create
from unveil_masking import Grid
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.objectives.mae import MAEConfig

CAPTIONS = ["a red field", "a blue field", "two green fields", "nothing at all"]
MAE = MAEConfig(decoder_width=32, decoder_depth=1, decoder_heads=2)
FLIP = FLIPConfig(text="text_tiny", text_length=6, vocab_size=60, embed_dim=16, negative_pool=2)


def build(config, encoder, side):
    torch.manual_seed(0)
    context = BuildContext(
        encoder=create(encoder, image_size=side),
        image_size=(side, side),
        captions=lambda most: CAPTIONS[:most],
        tokenizer_json=None,
    )
    return config.build(context).eval()


def inputs(side):
    return Inputs(
        images=torch.randn(4, 3, side, side),
        sample_ids=torch.arange(4, dtype=torch.int64),
        epochs=torch.zeros(4, dtype=torch.int64),
        captions=CAPTIONS,
    )


@pytest.mark.parametrize(
    ("config", "encoder", "side"),
    [(FLIP, "hiera_tiny", 64), (MAE, "timm:vit_tiny_patch16_dinov3_qkvb", 64), (MAE, "timm:test_vit", 64)],
)
def test_hidden_patches_leave_no_trace_in_what_is_encoded(config, encoder, side):
    objective, batch = build(config, encoder, side), inputs(side)
    grid = Grid(*objective.encoder.grid(side, side))
    partition = objective.strategy.sample(grid, batch.sample_ids, seed=3, epoch=batch.epochs)
    patch = objective.encoder.patch_size
    hidden = partition.mask.reshape(-1, 1, grid.rows, grid.cols).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    other = replace(batch, images=torch.where(hidden, torch.randn_like(batch.images), batch.images))
    seen = []
    handle = objective.encoder.blocks[-1].register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        outputs = [objective(item, seed=3) for item in (batch, other)]
    handle.remove()
    torch.testing.assert_close(seen[0], seen[1])
    assert outputs[0].per_sample.isfinite().all()
    assert outputs[0].num_tokens == 4 * partition.num_kept < 4 * grid.num


def test_flip_hides_the_units_of_a_hiera():
    objective = build(FLIP, "hiera_tiny", 64)
    assert objective.card().mask == {
        "strategy": "unit",
        "ratio": 0.5,
        "rounding": "floor_keep",
        "unit": 8,
        "share": "sample",
    }
    assert objective.card().realised_ratio == 0.5


def test_mae_predicts_patches_and_refuses_units():
    with pytest.raises(ConfigError, match=r"mae hides single patches, and hiera_tiny hides units of 8 x 8; choose"):
        build(MAE, "hiera_tiny", 64)
