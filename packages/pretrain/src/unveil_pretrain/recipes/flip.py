"""FLIP (arXiv:2212.00794)."""

from unveil_pretrain.config import FlipConfig
from unveil_pretrain.objectives.flip import FLIPConfig

__all__ = ["flip_b16"]


def flip_b16() -> FlipConfig:
    """FLIP's ViT-B/16 (arXiv:2212.00794, tables 9 and 10): 50 % masking, batch 65,536, 12.8 billion samples."""
    return FlipConfig(
        objective=FLIPConfig(mask_ratio=0.5, text="text_b", embed_dim=512, negative_pool=1000),
        encoder="vit_b16",
        image_size=(224, 224),
        crop_scale=(0.5, 1.0),
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
