"""Losses of objectives whose authors' code cannot be run beside ours, recorded once on weights made by a formula.

The numbers are our own, in float32: they guard against change of masks, vocabulary, positions or reduction, and prove
nothing by themselves. That the losses are right is for test_beit.py, test_splitmask.py, test_ijepa.py and
test_sparse_simmim.py, which hold them against the formulas.
"""

import golden_numbers as numbers
import pytest
import torch
from unveil_backbones import create
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.beit import BEiTConfig
from unveil_pretrain.objectives.ijepa import IJEPAConfig
from unveil_pretrain.objectives.sparse_simmim import SparseSimMIMConfig
from unveil_pretrain.objectives.splitmask import SplitMaskConfig

CASES = {
    "beit": (BEiTConfig(min_block=2, vocab_size=16), "vit_tiny", [3.364023, 3.80257, 3.467428]),
    "splitmask": (
        SplitMaskConfig(vocab_size=16, decoder_width=32, decoder_heads=2, temperature=0.2),
        "vit_tiny",
        [4.941605, 4.966186, 5.160054],
    ),
    "ijepa": (
        IJEPAConfig(predictor_width=32, predictor_depth=1, predictor_heads=2),
        "vit_tiny",
        [0.8117933, 0.8033282, 0.8080802],
    ),
    "sparse_simmim": (
        SparseSimMIMConfig(target_window=9, decoder_width=32, decoder_heads=2),
        "swinv2_tiny",
        [1.176696, 1.147327, 1.161605],
    ),
}


def losses(config, encoder):
    """Per-sample losses on formula weights and pictures of 64 pixels."""
    images = numbers.pictures((3, 3, 64, 64)).float()
    context = BuildContext(
        encoder=create(encoder, image_size=(64, 64)),
        image_size=(64, 64),
        captions=lambda _: [],
        tokenizer_json=None,
        images=lambda most: iter([images[:most]]),
    )
    objective = config.build(context).eval()
    with torch.no_grad():
        for name, parameter in objective.named_parameters():
            parameter.copy_(numbers.weight(name, tuple(parameter.shape)))
        batch = Inputs(images, torch.arange(3) + 40, torch.full((3,), 2), None)
        return objective(batch, seed=9).per_sample.tolist()


@pytest.mark.parametrize("name", CASES)
def test_losses_are_the_recorded_ones(name):
    config, encoder, recorded = CASES[name]
    assert losses(config, encoder) == pytest.approx(recorded, rel=2e-4)
