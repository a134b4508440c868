"""The named shapes of Hiera (224 pixels)."""

from collections.abc import Mapping
from types import MappingProxyType

from unveil_backbones.hiera_config import HieraConfig

__all__ = ["HIERA_PRESETS"]


def _hiera(image: int, width: int, depths: tuple[int, ...], heads: int) -> HieraConfig:
    return HieraConfig(image_size=(image, image), width=width, depths=depths, num_heads=heads)


HIERA_PRESETS: Mapping[str, HieraConfig] = MappingProxyType(
    {
        # For tests and demonstrations on a CPU.
        "hiera_tiny": _hiera(64, 32, (1, 1, 2, 1), 1),
        # arXiv 2306.00989, table 2.
        "hiera_t": _hiera(224, 96, (1, 2, 7, 2), 1),
        "hiera_s": _hiera(224, 96, (1, 2, 11, 2), 1),
        "hiera_b": _hiera(224, 96, (2, 3, 16, 3), 1),
        "hiera_bp": _hiera(224, 112, (2, 3, 16, 3), 2),
        "hiera_l": _hiera(224, 144, (2, 6, 36, 4), 2),
        "hiera_h": _hiera(224, 256, (2, 6, 36, 4), 4),
    }
)
"""Configuration by name: the shapes of the paper and one for tests on a CPU."""
