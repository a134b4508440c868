"""Imports what a run of `pretrain` needs, and counts the operations of the tests' models once: for a server of forks.

Counting is most of a small run, depends on the model alone, and writes nothing.
"""

from dataclasses import replace

import polars  # noqa: F401
import unveil_pretrain.cli
import unveil_pretrain.commands.flip
import unveil_pretrain.commands.mim  # noqa: F401
from unveil_pretrain import checkpointing, costing
from unveil_pretrain.planning.flops import sample_flops
from unveil_pretrain.recipes import tiny_flip, tiny_mae

known = {}


def counted(config):
    """As `sample_flops`."""
    model = config.encoder, config.image_size, config.objective
    if model not in known:
        known[model] = sample_flops(config)
    return known[model]


checkpointing.sample_flops = costing.sample_flops = counted

MAE = replace(tiny_mae().objective, decoder_width=32, decoder_depth=1, decoder_heads=2)
FLIP = replace(tiny_flip().objective, negative_pool=4, embed_dim=16, text_length=8)
for recipe, objective in ((tiny_mae(), MAE), (tiny_flip(), FLIP)):
    counted(replace(recipe, image_size=(32, 32), objective=objective, batch_size=6))
