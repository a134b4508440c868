"""Recipes that learn something in minutes on one CPU thread, at 64 pixels."""

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.objectives.mae import MAEConfig
from unveil_pretrain.objectives.simmim import SimMIMConfig

__all__ = ["tiny_flip", "tiny_mae", "tiny_simmim"]


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
        mirror=False,  # captions say left and right
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
