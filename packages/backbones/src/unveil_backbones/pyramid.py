"""Four feature maps at strides 4, 8, 16 and 32 from any encoder, for detection and segmentation.

A hierarchical encoder has them; each gets a LayerNorm, as in the Swin papers' detectors. A plain one gets ViTDet's
simple feature pyramid (Li et al., arXiv 2203.16527): transposed convolutions and poolings of its last map, in parallel.
"""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from unveil_backbones.base import Encoder, check_image_size
from unveil_backbones.errors import ConfigError

__all__ = ["FeaturePyramid"]

_STRIDES = (4, 8, 16, 32)


class FeaturePyramid(nn.Module):
    """An encoder with four maps.

    Args:
        encoder: The encoder; its parameters are this module's, under ``encoder.``.

    Attributes:
        channels: Channels of each map.
        strides: Pixels per cell of each map.

    Raises:
        ConfigError: The encoder has neither maps of these strides nor a single map of one of them.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.strides = _STRIDES
        if encoder.feature_strides == _STRIDES:
            self.channels = encoder.feature_channels
            self.levels = nn.ModuleList(_ChannelNorm(channels) for channels in self.channels)
            return
        stride = encoder.feature_strides[0]
        if len(encoder.feature_strides) != 1 or stride not in (4, 8, 16, 32):
            raise ConfigError(
                f"{encoder.spec.name} has maps of strides {encoder.feature_strides}; a pyramid needs {_STRIDES}, or "
                "one map of such a stride; change the patches with `with_patch_size(encoder, 16)`"
            )
        built = [_resampling(encoder.feature_channels[0], stride, wanted) for wanted in _STRIDES]
        self.levels = nn.ModuleList(level for level, _ in built)
        self.channels = tuple(channels for _, channels in built)

    def forward(
        self, images: Float[Tensor, "b c h w"]
    ) -> tuple[
        Float[Tensor, "b c4 h4 w4"],
        Float[Tensor, "b c8 h8 w8"],
        Float[Tensor, "b c16 h16 w16"],
        Float[Tensor, "b c32 h32 w32"],
    ]:
        """Return the four maps, finest first.

        Raises:
            ImageSizeError: A side is not a multiple of 32.
        """
        check_image_size(images.shape[-2], images.shape[-1], _STRIDES[-1], f"FeaturePyramid({self.encoder.spec.name})")
        maps = self.encoder.features(images)
        sources = maps if len(maps) == len(_STRIDES) else maps * len(_STRIDES)
        outputs = tuple(level(source) for level, source in zip(self.levels, sources, strict=True))
        return cast(tuple[Tensor, Tensor, Tensor, Tensor], outputs)


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map with channels first."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


def _resampling(width: int, stride: int, wanted: int) -> tuple[nn.Module, int]:
    """Layers from a map of one stride to another, and the channels they end with: halved by each doubling."""
    if wanted >= stride:
        factor = wanted // stride
        return (nn.MaxPool2d(factor, factor) if factor > 1 else nn.Identity()), width
    layers: list[nn.Module] = []
    while stride > wanted:
        if layers:
            layers += [_ChannelNorm(width), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2))
        width, stride = width // 2, stride // 2
    return nn.Sequential(*layers), width
