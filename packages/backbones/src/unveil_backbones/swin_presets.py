"""The named shapes of Swin Transformers V2."""

from collections.abc import Mapping
from types import MappingProxyType

from unveil_backbones.swin_config import SwinConfig, clamped_windows

__all__ = ["SWIN_PRESETS"]


def _swin(image: int, width: int, depths: tuple[int, ...], window: int) -> SwinConfig:
    windows = (window,) * 4
    return SwinConfig(
        image_size=(image, image),
        width=width,
        depths=depths,
        num_heads=tuple(width * 2**stage // 32 for stage in range(4)),
        window_sizes=windows,
        pretrained_window_sizes=clamped_windows((image, image), 4, windows),
    )


SWIN_PRESETS: Mapping[str, SwinConfig] = MappingProxyType(
    {
        "swinv2_tiny": _swin(64, 32, (2, 2, 2, 2), 4),
        "swinv2_s": _swin(192, 96, (2, 2, 18, 2), 12),
        "swinv2_b": _swin(192, 128, (2, 2, 18, 2), 12),
        "swinv2_l": _swin(192, 192, (2, 2, 18, 2), 12),
        "swinv2_h": _swin(192, 352, (2, 2, 18, 2), 12),
        "swinv2_g": _swin(192, 448, (2, 2, 18, 2), 12),
    }
)
"""Configuration by name: those of the data-scaling study and one for tests on a CPU.

The study's pre-train at 192 pixels with window 12 and have heads of width 32; its "giant" of 1.06 billion parameters
(arXiv 2206.04664, table 1) is not the SwinV2-G of 3 billion. For fine-tuning at 224 pixels with window 14, change
``image_size`` and ``window_sizes`` with ``rebuild``; the windows of pre-training stay, and with them the biases of
equal distances.
"""
