"""Recipes that learn something in minutes on one CPU thread, at 64 pixels."""

from dataclasses import replace

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.objectives.beit import BEiTConfig
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.objectives.ijepa import IJEPAConfig
from unveil_pretrain.objectives.mae import MAEConfig
from unveil_pretrain.objectives.simmim import SimMIMConfig
from unveil_pretrain.objectives.sparse_simmim import SparseSimMIMConfig
from unveil_pretrain.objectives.splitmask import SplitMaskConfig

__all__ = [
    "tiny_beit",
    "tiny_flip",
    "tiny_ijepa",
    "tiny_mae",
    "tiny_simmim",
    "tiny_simmim_vit",
    "tiny_sparse_simmim",
    "tiny_splitmask",
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


def tiny_simmim_vit() -> MimConfig:
    """SimMIM on a ViT of width 128 at 64 pixels; 60 % of 8-pixel patches hidden, raw pixels as target."""
    return replace(tiny_mae(), objective=SimMIMConfig(mask_unit=8, mask_ratio=0.6, target_window=0))


def tiny_sparse_simmim() -> MimConfig:
    """Sparse SimMIM on a SwinV2 of 32 channels at 128 pixels; 10 of 16 units of 32 pixels are not computed."""
    objective = SparseSimMIMConfig(target_window=0, decoder_width=96, decoder_heads=3)
    return replace(tiny_simmim(), objective=objective, image_size=(128, 128))


def tiny_beit() -> MimConfig:
    """BEiT-style tokens on a ViT of width 128 at 64 pixels; 25 of 64 patches in blocks, 256 visual tokens."""
    return replace(tiny_mae(), objective=BEiTConfig(mask_ratio=0.4, min_block=4, vocab_size=256))


def tiny_splitmask() -> MimConfig:
    """SplitMask on a ViT of width 128 at 64 pixels; 256 visual tokens, pools of 50 images in validation."""
    objective = SplitMaskConfig(vocab_size=256, decoder_width=96, decoder_heads=3, negative_pool=50)
    return replace(tiny_mae(), objective=objective)


def tiny_ijepa() -> MimConfig:
    """I-JEPA-style latent targets on a ViT of width 128 at 64 pixels; a predictor of 2 blocks, momentum from 0.99."""
    objective = IJEPAConfig(predictor_width=96, predictor_depth=2, predictor_heads=3, momentum=0.99)
    return replace(tiny_mae(), objective=objective)


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


def tiny_clip() -> FlipConfig:
    """`tiny_flip` with whole images: as many samples at half the batch, as in FLIP's table 1a."""
    flip = tiny_flip()
    return replace(flip, objective=replace(flip.objective, mask_ratio=0.0), steps=800, batch_size=16, warmup_steps=40)


def tiny_flip75() -> FlipConfig:
    """`tiny_flip` with three quarters of the patches dropped: as many samples at twice the batch."""
    flip = tiny_flip()
    return replace(flip, objective=replace(flip.objective, mask_ratio=0.75), steps=200, batch_size=64, warmup_steps=10)
