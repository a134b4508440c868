"""Complete settings by name: a recipe is a function, a variant changes a few fields of another with `replace`.

`tiny_*` learn something in minutes on one CPU thread; the others are the papers' settings.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.recipes.flip import flip_b16
from unveil_pretrain.recipes.mae import mae_vit_b16, mae_vit_s16
from unveil_pretrain.recipes.simmim import simmim_swinv2_s
from unveil_pretrain.recipes.tiny import tiny_flip, tiny_mae, tiny_simmim
from unveil_pretrain.recipes.video import tiny_videomae, videomae_b16, videomae_h16, videomae_l16

__all__ = [
    "FLIP_RECIPES",
    "MIM_RECIPES",
    "flip_b16",
    "mae_vit_b16",
    "mae_vit_s16",
    "simmim_swinv2_s",
    "tiny_flip",
    "tiny_mae",
    "tiny_simmim",
    "tiny_videomae",
    "videomae_b16",
    "videomae_h16",
    "videomae_l16",
]

MIM_RECIPES: Mapping[str, Callable[[], MimConfig]] = MappingProxyType(
    {
        "tiny_simmim": tiny_simmim,
        "tiny_mae": tiny_mae,
        "simmim_swinv2_s": simmim_swinv2_s,
        "mae_vit_s16": mae_vit_s16,
        "mae_vit_b16": mae_vit_b16,
        "tiny_videomae": tiny_videomae,
        "videomae_b16": videomae_b16,
        "videomae_l16": videomae_l16,
        "videomae_h16": videomae_h16,
    }
)
"""What `pretrain mim` offers."""

FLIP_RECIPES: Mapping[str, Callable[[], FlipConfig]] = MappingProxyType({"tiny_flip": tiny_flip, "flip_b16": flip_b16})
"""What `pretrain flip` offers."""
