"""Complete settings by name: a recipe is a function, a variant changes a few fields of another with `replace`.

`tiny_*` learn something in minutes on one CPU thread; the others are the papers' settings.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import get_args

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.recipes.flip import FLIP_CELLS, LENGTHS, SCALING_AXES, FlipData, flip_b16, unmasked
from unveil_pretrain.recipes.mae import mae_vit_b16, mae_vit_h14, mae_vit_l16, mae_vit_s16
from unveil_pretrain.recipes.other import (
    beit_vit_b16,
    ijepa_vit_h14,
    simmim_vit_b16,
    sparse_simmim_swinv2_b,
    splitmask_vit_b16,
)
from unveil_pretrain.recipes.simmim import SIMMIM_CELLS, Data, Length, simmim_swinv2, simmim_swinv2_s
from unveil_pretrain.recipes.tiny import (
    tiny_beit,
    tiny_clip,
    tiny_flip,
    tiny_flip75,
    tiny_ijepa,
    tiny_mae,
    tiny_simmim,
    tiny_simmim_vit,
    tiny_sparse_simmim,
    tiny_splitmask,
)
from unveil_pretrain.recipes.video import tiny_videomae, videomae_b16, videomae_h16, videomae_l16

__all__ = [
    "FLIP_RECIPES",
    "MIM_RECIPES",
    "SCALING_AXES",
    "SIMMIM_CELLS",
    "beit_vit_b16",
    "flip_b16",
    "ijepa_vit_h14",
    "mae_vit_b16",
    "mae_vit_h14",
    "mae_vit_l16",
    "mae_vit_s16",
    "no_recipe",
    "patterns",
    "simmim_swinv2",
    "simmim_swinv2_s",
    "simmim_vit_b16",
    "sparse_simmim_swinv2_b",
    "splitmask_vit_b16",
    "tiny_beit",
    "tiny_clip",
    "tiny_flip",
    "tiny_flip75",
    "tiny_ijepa",
    "tiny_mae",
    "tiny_simmim",
    "tiny_simmim_vit",
    "tiny_sparse_simmim",
    "tiny_splitmask",
    "tiny_videomae",
    "unmasked",
    "videomae_b16",
    "videomae_h16",
    "videomae_l16",
]

MIM_RECIPES: Mapping[str, Callable[[], MimConfig]] = MappingProxyType(
    {
        "tiny_simmim": tiny_simmim,
        "tiny_simmim_vit": tiny_simmim_vit,
        "tiny_sparse_simmim": tiny_sparse_simmim,
        "tiny_mae": tiny_mae,
        "tiny_beit": tiny_beit,
        "tiny_splitmask": tiny_splitmask,
        "tiny_ijepa": tiny_ijepa,
        **SIMMIM_CELLS,
        "simmim_swinv2_s": simmim_swinv2_s,
        "simmim_vit_b16": simmim_vit_b16,
        "sparse_simmim_swinv2_b": sparse_simmim_swinv2_b,
        "mae_vit_s16": mae_vit_s16,
        "mae_vit_b16": mae_vit_b16,
        "mae_vit_l16": mae_vit_l16,
        "mae_vit_h14": mae_vit_h14,
        "beit_vit_b16": beit_vit_b16,
        "splitmask_vit_b16": splitmask_vit_b16,
        "ijepa_vit_h14": ijepa_vit_h14,
        "tiny_videomae": tiny_videomae,
        "videomae_b16": videomae_b16,
        "videomae_l16": videomae_l16,
        "videomae_h16": videomae_h16,
    }
)
"""What `pretrain mim` offers."""

FLIP_RECIPES: Mapping[str, Callable[[], FlipConfig]] = MappingProxyType(
    {
        "tiny_flip": tiny_flip,
        "tiny_clip": tiny_clip,
        "tiny_flip75": tiny_flip75,
        "flip_b16": flip_b16,
        **FLIP_CELLS,
    }
)
"""What `pretrain flip` offers."""


def patterns(names: Iterable[str]) -> list[str]:
    """The names, those of a paper's cells as one pattern for each size."""
    found: dict[str, None] = {}
    for name in names:
        if name in SIMMIM_CELLS:
            size, data, length = name.split("_")[2], ",".join(get_args(Data)), ",".join(get_args(Length))
            name = f"simmim_swinv2_{size}_{{{data}}}_{{{length}}}"
        elif name in FLIP_CELLS:
            kind, model = name.split("_")[:2]
            name = f"{kind}_{model}_{{{','.join(get_args(FlipData))}}}_{{{','.join(LENGTHS)}}}"
        found[name] = None
    return list(found)


def no_recipe(name: str, recipes: Iterable[str]) -> str:
    """That there is no recipe of this name here, and what may be meant."""
    elsewhere = "mim" if name in MIM_RECIPES else "flip" if name in FLIP_RECIPES else ""
    if elsewhere:
        return f"{name} is a recipe of `pretrain {elsewhere}`"
    near = difflib.get_close_matches(name, list(recipes), n=3)
    meant = " or ".join([", ".join(near[:-1]), near[-1]] if near[1:] else near)
    return f"there is no recipe {name!r}" + (f" (did you mean {meant}?)" if near else "")
