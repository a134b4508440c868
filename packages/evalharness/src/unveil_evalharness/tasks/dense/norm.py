"""LayerNorm over the channels of a map, for necks and heads of mm models, which take it as a class."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["LayerNorm2d"]


class LayerNorm2d(nn.Module):
    """Normalises each cell over its channels, then scales and shifts each channel, as in ViTDet's neck and heads.

    Args:
        channels: channels of the map.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Of the same shape and type."""
        normalised = nn.functional.layer_norm(
            features.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps
        )
        return normalised.permute(0, 3, 1, 2).to(features.dtype)
