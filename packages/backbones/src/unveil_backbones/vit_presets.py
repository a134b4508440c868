"""The named shapes of Vision Transformers (224 pixels unless said otherwise; sizes of the papers cited at each)."""

from collections.abc import Mapping
from types import MappingProxyType

from unveil_backbones.vit import VitConfig

__all__ = ["VIT_PRESETS"]


def _vit(image: int, patch: int, width: int, depth: int, heads: int, mlp_ratio: float = 4.0) -> VitConfig:
    return VitConfig(
        image_size=(image, image),
        patch_size=patch,
        width=width,
        depth=depth,
        num_heads=heads,
        mlp_ratio=mlp_ratio,
    )


VIT_PRESETS: Mapping[str, VitConfig] = MappingProxyType(
    {
        # For tests, demonstrations and small studies on a CPU: three widths of one shape.
        "vit_tiny": _vit(64, 8, 128, 4, 4),
        "vit_micro": _vit(64, 8, 64, 4, 2),
        "vit_mini": _vit(64, 8, 256, 4, 8),
        # DeiT (arXiv 2012.12877), table 1: Ti and S.
        "vit_ti16": _vit(224, 16, 192, 12, 3),
        "vit_s16": _vit(224, 16, 384, 12, 6),
        # ViT (arXiv 2010.11929), table 1: B, L and H.
        "vit_b16": _vit(224, 16, 768, 12, 12),
        "vit_l16": _vit(224, 16, 1024, 24, 16),
        "vit_h14": _vit(224, 14, 1280, 32, 16),
        # Scaling Vision Transformers (arXiv 2106.04560), table 2: g, an MLP of 6144.
        "vit_g14": _vit(224, 14, 1408, 40, 16, 48 / 11),
    }
)
"""Configuration by name. All are MAE's: fixed sine-cosine positions, a class token, mean pooling."""
