"""What every image encoder offers: ``embed`` (pixels to tokens) and ``encode`` (tokens to tokens), in two halves.

Masking happens between the two, outside of the encoder. Shapes: ``b`` images, ``c h w`` pixels, ``n`` tokens of
``embed`` in raster order, ``m`` tokens of ``encode``, ``d`` and ``e`` their widths.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor, nn

from unveil_backbones.errors import ImageSizeError, TokenCountError
from unveil_backbones.specs import EncoderSpec

if TYPE_CHECKING:
    from unveil_backbones.swin import SwinConfig
    from unveil_backbones.vit import VitConfig

__all__ = ["Encoder", "check_image_size", "undecayed"]


class Encoder(nn.Module, ABC):
    """An image encoder on timm's modules; parameter names are timm's.

    Attributes:
        spec: Name and full configuration: what ``build`` needs to make it again.
        width: Width of the tokens of ``encode`` and of ``forward``.
        embed_width: Width of the tokens of ``embed``.
        patch_size: Side in pixels of a token of ``embed``.
        stride: Side in pixels of a token of ``encode``.
        num_prefix_tokens: Tokens that ``encode`` puts before those of the image.
        accepts_subset: Whether ``encode`` takes a part of the tokens.
        feature_channels: Channels of each map of ``features``.
        feature_strides: Pixels per cell of each map of ``features``.
    """

    spec: EncoderSpec
    width: int
    embed_width: int
    patch_size: int
    stride: int
    num_prefix_tokens: int
    accepts_subset: bool
    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...]

    @property
    @abstractmethod
    def config(self) -> "VitConfig | SwinConfig":
        """The typed configuration, for ``rebuild``."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of ``embed``'s tokens for an image of this size.

        Raises:
            ImageSizeError: A side is not a multiple of ``stride``.
        """
        check_image_size(height, width, self.stride, self.spec.name)
        return height // self.patch_size, width // self.patch_size

    @abstractmethod
    def embed(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Turn images into tokens in raster order, positions added where the encoder has them.

        Raises:
            ImageSizeError: A side is not a multiple of ``stride``.
        """

    @abstractmethod
    def encode(self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b m e"]:
        """Run the blocks and the final norm.

        Args:
            tokens: What ``embed`` returned, or a part of it if ``accepts_subset``, or a mixture with mask tokens.
            grid: Rows and columns of the whole image's tokens.

        Raises:
            TokenCountError: The number of tokens does not fit the grid.
        """

    @abstractmethod
    def features(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the encoder's native feature maps, finest first (``feature_channels``, ``feature_strides``)."""

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e"]:
        """Return one vector per image: the mean of the encoded tokens of the image, prefix tokens left out."""
        tokens = self.encode(self.embed(images), self.grid(images.shape[-2], images.shape[-1]))
        return tokens[:, self.num_prefix_tokens :].mean(dim=1)

    @abstractmethod
    def layer_groups(self) -> list[list[str]]:
        """Return the names of all parameters in groups from the input to the final norm, for layer-wise rates."""

    def no_weight_decay(self) -> frozenset[str]:
        """Return the names of the parameters that weight decay must not touch: biases, norms, tokens, positions."""
        return undecayed(self)

    @property
    def num_parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _check_count(self, given: int, grid: tuple[int, int]) -> None:
        """Refuse a number of tokens that cannot come from ``grid``."""
        whole = grid[0] * grid[1]
        if given == whole or (self.accepts_subset and given < whole):
            return
        allowed = f"at most {whole}" if self.accepts_subset else f"exactly {whole}"
        raise TokenCountError(
            f"{self.spec.name} got {given} tokens for a grid of {grid[0]} x {grid[1]}; it takes {allowed}; "
            "pass the grid that `encoder.grid(height, width)` returns"
        )


def check_image_size(height: int, width: int, multiple: int, who: str) -> None:
    """Refuse image sides that are not positive multiples of ``multiple``, and name the nearest that are.

    Raises:
        ImageSizeError: A side does not fit.
    """
    if height > 0 and width > 0 and height % multiple == 0 and width % multiple == 0:
        return
    sizes = [" or ".join(str(near) for near in _nearest(side, multiple)) for side in (height, width)]
    raise ImageSizeError(
        f"{who} got an image of {height} x {width} pixels; height and width have to be multiples of {multiple}; "
        f"resize or pad to height {sizes[0]} and width {sizes[1]}"
    )


def undecayed(module: nn.Module, containing: tuple[str, ...] = ()) -> frozenset[str]:
    """Names of parameters with at most one axis longer than 1, or with one of the given words in their name."""
    return frozenset(
        name
        for name, parameter in module.named_parameters()
        if sum(side > 1 for side in parameter.shape) <= 1 or any(word in name for word in containing)
    )


def _nearest(side: int, multiple: int) -> list[int]:
    below = side // multiple * multiple
    if below == side and side > 0:
        return [side]
    return [below, below + multiple] if below > 0 else [multiple]
