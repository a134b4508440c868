"""Complete settings by name: a recipe is a function, a variant changes a few fields of another with `replace`.

`tiny_*` learn something in minutes on one CPU thread; the others are the papers' settings.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.objectives.mae import MAEConfig
from unveil_pretrain.objectives.simmim import SimMIMConfig

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
]


def tiny_simmim() -> MimConfig:
    """SimMIM on a SwinV2 of 32 channels at 64 pixels; 60 % of 8-pixel units hidden, raw pixels as target."""
    return MimConfig(
        objective=SimMIMConfig(mask_unit=8, mask_ratio=0.6, target_window=0),
        encoder="swinv2_tiny",
        image_size=(64, 64),
        steps=400,
        batch_size=16,
        base_lr=6.4e-2,
        lr_reference_batch=512,
        warmup_steps=40,
        schedule="cosine",
        betas=(0.9, 0.95),
        validate_every=50,
        gap_images=200,
    )


def tiny_mae() -> MimConfig:
    """MAE on a ViT of width 128 at 64 pixels; 75 % of 8-pixel patches hidden."""
    return MimConfig(
        objective=MAEConfig(mask_ratio=0.75, decoder_width=96, decoder_depth=2, decoder_heads=3),
        encoder="vit_tiny",
        image_size=(64, 64),
        steps=400,
        batch_size=32,
        base_lr=8e-3,
        lr_reference_batch=256,
        warmup_steps=20,
        schedule="cosine",
        betas=(0.9, 0.95),
        validate_every=50,
        gap_images=200,
    )


def tiny_flip() -> FlipConfig:
    """FLIP on a ViT and a text tower of width 128 at 64 pixels; half of the patches dropped."""
    return FlipConfig(
        objective=FLIPConfig(
            mask_ratio=0.5, text="text_tiny", text_length=24, vocab_size=512, embed_dim=128, negative_pool=100
        ),
        encoder="vit_tiny",
        image_size=(64, 64),
        steps=400,
        batch_size=32,
        base_lr=8e-3,
        lr_reference_batch=256,
        warmup_steps=20,
        schedule="cosine",
        weight_decay=0.2,
        betas=(0.9, 0.95),
        validate_every=200,
        gap_images=200,
    )


def simmim_swinv2_s() -> MimConfig:
    """SwinV2-S of the data-scaling study (arXiv:2206.04664): 192 pixels, normalised target, batch 2048, 125K steps.

    Base rate, warm-up, drop path and the drop at 7/8 of the run are those of the released SwinV2-B configuration.
    """
    return MimConfig(
        objective=SimMIMConfig(mask_unit=32, mask_ratio=0.6, target_window=47),
        encoder="swinv2_s",
        image_size=(192, 192),
        drop_path=0.1,
        steps=125_000,
        batch_size=2048,
        base_lr=1e-4,
        lr_reference_batch=512,
        warmup_steps=6250,
        schedule="multi_step",
        validate_every=6250,
        checkpoint_every=6250,
    )


def mae_vit_b16() -> MimConfig:
    """MAE's ViT-B/16 (arXiv:2111.06377): batch 4096, 800 epochs of ImageNet-1K, 40 of them warm-up."""
    return MimConfig(
        objective=MAEConfig(mask_ratio=0.75),
        encoder="vit_b16",
        image_size=(224, 224),
        steps=250_228,  # 800 × 1,281,167 images / 4096
        batch_size=4096,
        base_lr=1.5e-4,
        lr_reference_batch=256,
        warmup_steps=12_511,
        schedule="cosine",
        betas=(0.9, 0.95),
        validate_every=6250,
        checkpoint_every=6250,
    )


def mae_vit_s16() -> MimConfig:
    """`mae_vit_b16` with a ViT-S/16; this size is not in the paper."""
    return replace(mae_vit_b16(), encoder="vit_s16")


def flip_b16() -> FlipConfig:
    """FLIP's ViT-B/16 (arXiv:2212.00794, tables 9 and 10): 50 % masking, batch 65,536, 12.8 billion samples."""
    return FlipConfig(
        objective=FLIPConfig(mask_ratio=0.5, text="text_b", embed_dim=512, negative_pool=1000),
        encoder="vit_b16",
        image_size=(224, 224),
        steps=195_313,
        batch_size=65_536,
        base_lr=4e-6,
        lr_reference_batch=256,
        warmup_steps=781,  # 51.2 million samples
        schedule="cosine",
        weight_decay=0.2,
        betas=(0.9, 0.95),
        validate_every=2000,
        checkpoint_every=2000,
    )


MIM_RECIPES: Mapping[str, Callable[[], MimConfig]] = MappingProxyType(
    {
        "tiny_simmim": tiny_simmim,
        "tiny_mae": tiny_mae,
        "simmim_swinv2_s": simmim_swinv2_s,
        "mae_vit_s16": mae_vit_s16,
        "mae_vit_b16": mae_vit_b16,
    }
)
"""What `pretrain mim` offers."""

FLIP_RECIPES: Mapping[str, Callable[[], FlipConfig]] = MappingProxyType({"tiny_flip": tiny_flip, "flip_b16": flip_b16})
"""What `pretrain flip` offers."""
