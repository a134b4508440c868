"""ViTDet's neck for plain encoders; needs mmengine, so it is imported inside an open session only."""

from collections.abc import Sequence

from jaxtyping import Float
from mmengine.model import BaseModule, caffe2_xavier_init
from torch import Tensor, nn

from unveil_evalharness.tasks.dense.norm import LayerNorm2d

__all__ = ["SimpleNeck"]


class SimpleNeck(BaseModule):
    """The four maps to one width, each by itself, and a fifth by skipping every other cell of the last.

    Per map a 1 × 1 and a 3 × 3 convolution, each followed by LayerNorm over channels (Li et al. 2022, arXiv
    2203.16527, section 3); no top-down path, which a plain encoder's equal maps do not need.

    Args:
        in_channels: channels of each map, finest first.
        out_channels: of all maps that leave.
        layer_norm: LayerNorm after each convolution; without it the convolutions have a bias.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, *, layer_norm: bool) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level(channels, out_channels, layer_norm) for channels in in_channels)

    def init_weights(self) -> None:
        """As mmdet's FPN: uniform by the fan-in."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                caffe2_xavier_init(module)

    def forward(self, maps: Sequence[Float[Tensor, "b _ _ _"]]) -> tuple[Float[Tensor, "b c _ _"], ...]:
        """Five maps at strides 4, 8, 16, 32 and 64."""
        outputs = [level(features) for level, features in zip(self.levels, maps, strict=True)]
        return (*outputs, outputs[-1][..., ::2, ::2])


def _level(in_channels: int, out_channels: int, layer_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, 1, bias=not layer_norm)]
    if layer_norm:
        layers.append(LayerNorm2d(out_channels))
    layers.append(nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=not layer_norm))
    if layer_norm:
        layers.append(LayerNorm2d(out_channels))
    return nn.Sequential(*layers)
