"""timm's own Vision Transformers, made for any image size and never with downloaded weights."""

from difflib import get_close_matches
from typing import cast

import torch

from unveil_backbones._timm import (
    Eva,
    PatchEmbed,
    VisionTransformer,
    create_model,
    get_pretrained_cfg,
    is_model_in_modules,
    list_models,
)
from unveil_backbones.base import Pooling
from unveil_backbones.errors import UnknownModelError
from unveil_backbones.timm_config import TIMM_PREFIX, TimmConfig

__all__ = ["TimmVit", "make_body", "timm_preset"]

TimmVit = VisionTransformer | Eva

# Modules of timm whose blocks do the same to every token whatever the others are, but for attention and rotation.
_MODULES = ("vision_transformer", "deit", "eva")
_FAMILIES = "vit_*, deit_*, deit3_*, flexivit_*, beit3_*, aimv2_*, eva_*, eva02_*"


def timm_preset(model: str) -> TimmConfig:
    """Return the configuration that timm gives a model: its image size and pooling.

    An image size that the patches do not divide, as timm cuts it, becomes the next smaller one that they do. Attention
    pooling is left out with the head; the mean stands in for it.

    Raises:
        UnknownModelError: timm has no such model, or it cannot run on a part of its tokens.
    """
    _check_model(model)
    given = get_pretrained_cfg(model)
    height, width = (given.input_size if given is not None else (3, 224, 224))[1:]
    with torch.device("meta"):
        body = cast(TimmVit, create_model(model, pretrained=False, num_classes=0))
    # timm's Vision Transformers have square patches.
    patch = int(cast(PatchEmbed, body.patch_embed).patch_size[0])
    pooling: Pooling = "cls" if body.global_pool == "token" else "mean"
    if isinstance(body, VisionTransformer) and body.pool_include_prefix and pooling == "mean":
        pooling = "mean_all"
    size = (height // patch * patch, width // patch * patch)
    return TimmConfig(model=model, image_size=size, patch_size=patch, pooling=pooling)


def make_body(config: TimmConfig) -> TimmVit:
    """Make timm's model with fresh weights and without a classifier.

    Raises:
        UnknownModelError: timm has no such model, or it cannot run on a part of its tokens.
    """
    _check_model(config.model)
    body = create_model(
        config.model,
        pretrained=False,
        num_classes=0,
        img_size=config.image_size,
        patch_size=config.patch_size,
        drop_path_rate=config.drop_path,
        dynamic_img_size=True,
    )
    return cast(TimmVit, body)


def _check_model(model: str) -> None:
    base = model.partition(".")[0]
    known = list_models()
    tagged = "." in model
    if base not in known or (tagged and model not in list_models(pretrained=True)):
        near = get_close_matches(model, list_models(pretrained=True) if tagged and base in known else known, n=4)
        hint = f"near it are {', '.join(near)}" if near else "`timm.list_models()` names them"
        raise UnknownModelError(f"timm has no model {model!r}; {hint}; choose one, as {TIMM_PREFIX}<model>")
    if not is_model_in_modules(base, _MODULES):
        raise UnknownModelError(
            f"timm's {model!r} cannot run on a part of its tokens; its plain Vision Transformers can ({_FAMILIES}); "
            "choose one of them, or one of the hiera_* and swinv2_* of this package"
        )
