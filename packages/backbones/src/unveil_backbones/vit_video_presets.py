"""The named shapes of Vision Transformers for clips (16 frames of 224 pixels unless said otherwise)."""

from collections.abc import Mapping
from types import MappingProxyType

from unveil_backbones.vit_video_config import VideoVitConfig

__all__ = ["VIT_VIDEO_PRESETS"]


def _vit(width: int, depth: int, heads: int) -> VideoVitConfig:
    return VideoVitConfig(image_size=(224, 224), patch_size=16, width=width, depth=depth, num_heads=heads)


VIT_VIDEO_PRESETS: Mapping[str, VideoVitConfig] = MappingProxyType(
    {
        # For tests and demonstrations on a CPU.
        "vit_video_tiny": VideoVitConfig(
            image_size=(64, 64), num_frames=8, patch_size=8, width=128, depth=4, num_heads=4
        ),
        # The sizes that VideoMAE (arXiv 2203.12602) released.
        "vit_video_s16": _vit(384, 12, 6),
        "vit_video_b16": _vit(768, 12, 12),
        "vit_video_l16": _vit(1024, 24, 16),
        "vit_video_h16": _vit(1280, 32, 16),
    }
)
"""Configuration by name. All are VideoMAE's: cubes of 2 x 16 x 16 pixels, fixed positions, no class token."""
