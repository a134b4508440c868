"""Mask tokens in the encoder: hidden patch embeddings are replaced before positions are added (SimMIM, BEiT).

`Encoder.embed` adds positions at once. Replacing its tokens by a mask token plus their positions is the same:
where(hidden, token, patches) + positions = where(hidden, token + positions, patches + positions).

Shapes: b samples, n tokens, d width.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from unveil_backbones import Encoder

from unveil_pretrain.errors import ConfigError

__all__ = ["check_replaceable", "hide_tokens"]


def hide_tokens(
    encoder: Encoder,
    tokens: Float[Tensor, "b n d"],
    hidden: Bool[Tensor, "b n"],
    mask_token: Float[Tensor, " d"],
    grid: tuple[int, int],
) -> Float[Tensor, "b n d"]:
    """Replace the patch embeddings of hidden tokens by `mask_token`; their positions stay.

    Args:
        encoder: Whose tokens they are.
        tokens: All tokens of `encoder.embed`.
        hidden: True where a token is hidden.
        mask_token: What stands in its place.
        grid: Rows and columns of the tokens.
    """
    fill = mask_token.to(tokens.dtype)
    positions = encoder.positions(grid)
    if positions is not None:
        fill = fill + positions.to(tokens.dtype)
    return torch.where(hidden[:, :, None], fill, tokens)


def check_replaceable(encoder: Encoder, objective: str) -> None:
    """Refuse an encoder whose patches overlap: a replaced token would still show in its neighbours.

    Raises:
        ConfigError: the encoder hides units by leaving them out (Hiera).
    """
    if encoder.mask_unit != 1:
        raise ConfigError(
            f"{objective} replaces tokens by a mask token, but the patches of {encoder.spec.name} overlap, so hidden "
            "pixels would show in their neighbours; choose a vit or swinv2 encoder"
        )
