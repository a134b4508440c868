"""MAE (arXiv:2111.06377)."""

from dataclasses import replace

from unveil_pretrain.config import MimConfig
from unveil_pretrain.objectives.mae import MAEConfig

__all__ = ["mae_vit_b16", "mae_vit_h14", "mae_vit_l16", "mae_vit_s16"]


def mae_vit_b16() -> MimConfig:
    """MAE's ViT-B/16 (arXiv:2111.06377): batch 4096, 800 epochs of ImageNet-1K, 40 of them warm-up."""
    return MimConfig(
        objective=MAEConfig(mask_ratio=0.75),
        encoder="vit_b16",
        image_size=(224, 224),
        crop_scale=(0.2, 1.0),
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


def mae_vit_l16() -> MimConfig:
    """MAE's ViT-L/16 (arXiv:2111.06377): the settings of `mae_vit_b16`, 800 epochs of ImageNet-1K."""
    return replace(mae_vit_b16(), encoder="vit_l16")


def mae_vit_h14() -> MimConfig:
    """MAE's ViT-H/14 (arXiv:2111.06377): the settings of `mae_vit_b16`, 800 epochs of ImageNet-1K."""
    return replace(mae_vit_b16(), encoder="vit_h14")
