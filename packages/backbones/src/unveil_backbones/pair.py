"""An image encoder and a text tower with a common embedding space (CLIP; FLIP, arXiv 2212.00794).

As in FLIP's released code: the image vector is the mean of all encoded tokens, class token included, unless the encoder
pools its class token (CLIP); each tower ends in one bias-free projection; vectors have length 1; the temperature is
learnt, starts at 1/0.07, and its logarithm is kept in [0, ln 100].
"""

import math

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn

from unveil_backbones.base import Encoder
from unveil_backbones.text import TextTower

__all__ = ["ImageTextPair"]

_LARGEST_SCALE = math.log(100.0)


class ImageTextPair(nn.Module):
    """Image encoder, text tower, two projections and a temperature.

    Args:
        encoder: The image encoder.
        text: The text tower.
        embed_dim: Width of the common space.
    """

    def __init__(self, encoder: Encoder, text: TextTower, embed_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.text = text
        self.embed_dim = embed_dim
        self.image_projection = nn.Linear(encoder.width, embed_dim, bias=False)
        self.text_projection = nn.Linear(text.width, embed_dim, bias=False)
        self.raw_logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for tower, projection in ((encoder, self.image_projection), (text, self.text_projection)):
            nn.init.normal_(projection.weight, std=tower.width**-0.5)

    @property
    def logit_scale(self) -> Float[Tensor, ""]:
        """Logarithm of the factor on cosine similarities, in [0, ln 100]; take its ``exp()``."""
        return self.raw_logit_scale.clamp(0.0, _LARGEST_SCALE)

    def encode_image(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e"]:
        """Return unit vectors of whole images."""
        grid = self.encoder.grid(images.shape[-2], images.shape[-1])
        return self.encode_image_tokens(self.encoder.embed(images), grid)

    def encode_image_tokens(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, int], keep: Int64[Tensor, "b k"] | None = None
    ) -> Float[Tensor, "b e"]:
        """Return unit vectors of images of which ``encoder.embed``'s tokens, or a part of them, are given.

        Args:
            tokens: Tokens of ``encoder.embed``.
            grid: Rows and columns of the whole image's tokens.
            keep: The ``keep`` that ``encoder.embed`` was given, if any.

        Raises:
            TokenCountError: As ``encoder.encode``.
            KeepError: As ``encoder.encode``.
        """
        if self.encoder.pooling == "mean":
            return self.image_vectors(self.encoder.encode(tokens, grid, keep))
        # An encoder may compute less than all tokens where it pools one of them.
        return nn.functional.normalize(self.image_projection(self.encoder.encode_pooled(tokens, grid, keep)), dim=-1)

    def image_vectors(self, encoded: Float[Tensor, "b m d"]) -> Float[Tensor, "b e"]:
        """Return unit vectors of images from all tokens of ``encoder.encode``."""
        # The default of encoders alone leaves prefix tokens out; pairs have always counted them, as FLIP does.
        pooled = self.encoder.pool(encoded, "mean_all" if self.encoder.pooling == "mean" else None)
        return nn.functional.normalize(self.image_projection(pooled), dim=-1)

    def encode_text(
        self, ids: Int[Tensor, "b t"], positions: Int64[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b e"]:
        """Return unit vectors of captions given as word pieces, which may and should lie on the CPU.

        Args:
            ids: As ``TextTower`` takes them.
            positions: Likewise.
        """
        return nn.functional.normalize(self.text_projection(self.text(ids, positions)), dim=-1)

    def clip_logit_scale(self) -> None:
        """Take the temperature's parameter back into its range, as CLIP does after every update.

        A parameter outside gets no gradient and would stay there; at the border it can turn back.
        """
        with torch.no_grad():
            self.raw_logit_scale.clamp_(0.0, _LARGEST_SCALE)

    def block_names(self) -> tuple[str, ...]:
        """Return the module paths of both towers' blocks: units to wrap for FSDP."""
        return (
            *(f"encoder.{name}" for name in self.encoder.block_names()),
            *(f"text.{name}" for name in self.text.block_names()),
        )

    def no_weight_decay(self) -> frozenset[str]:
        """Return the names of the parameters that weight decay must not touch."""
        return frozenset(
            {"raw_logit_scale"}
            | {f"encoder.{name}" for name in self.encoder.no_weight_decay()}
            | {f"text.{name}" for name in self.text.no_weight_decay()}
        )

    def heads_state(self, prefix: str = "pair.") -> dict[str, Tensor]:
        """Return all tensors but the encoder's, named as a checkpoint's ``heads`` name them."""
        return {prefix + name: value for name, value in self.state_dict().items() if not name.startswith("encoder.")}
