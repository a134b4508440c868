"""The decoders of foreign pre-training files, kept so that their validation loss can be measured again.

They become the heads that `unveil_pretrain` has for the same objective, under its names; what the files do not say of
the objective is the published convention, and recorded as assumed.
"""

from dataclasses import dataclass, field

from torch import Tensor

from unveil_backbones._json import JSON
from unveil_backbones.conversion.ledger import Ledger, Link, with_shape
from unveil_backbones.position import sin_cos_position

__all__ = ["Decoder", "mae_decoder", "simmim_decoder"]

_SAME_POSITION = 1e-6
"""Largest difference to the fixed positions: both are roundings of the same real numbers to float32."""

_HEAD_WIDTH = 32
"""Of MAE's decoders: 16 heads of the width 512, at every size that was published (arXiv 2111.06377, table 1)."""

_PARTS = ("weight", "bias")


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """What a file keeps of its objective."""

    links: list[Link] = field(default_factory=list)
    """One for each head; none where the file has no decoder that can be used."""
    settings: dict[str, JSON] | None = None
    """Settings of the objective."""
    assumed: dict[str, JSON] = field(default_factory=dict)
    """Those of the settings that the file does not say."""


def mae_decoder(
    ledger: Ledger, prefix: str, *, width: int, patch: int, grid: tuple[int, int], heads: int | None
) -> Decoder:
    """Link MAE's decoder, if the file has one with the fixed positions; else drop what there is of it.

    Args:
        ledger: The file.
        prefix: What stands before every name.
        width: Of the encoder.
        patch: Side of a patch in pixels.
        grid: Rows and columns of patches.
        heads: Attention heads of the decoder; None for 32 channels each.

    Raises:
        TensorMismatchError: a tensor of the decoder has another shape than its place.
    """
    names = [name for name in ledger.tensors if name.startswith(f"{prefix}decoder_")]
    table, token = f"{prefix}decoder_pos_embed", f"{prefix}mask_token"
    if f"{prefix}decoder_embed.weight" not in ledger:
        ledger.drop([*names, token], "parts of a decoder without its first layer")
        return Decoder()
    inner = ledger.look(f"{prefix}decoder_embed.weight", 2).shape[0]
    if table in ledger and not _is_fixed(ledger.look(table, 3), grid):
        ledger.drop([*names, token], "the decoder of pre-training, whose positions are not the fixed ones")
        return Decoder()
    ledger.drop([table], "the decoder's fixed positions, which are computed")
    shapes = {
        "project": ("decoder_embed", (inner, width)),
        "norm": ("decoder_norm", (inner,)),
        "predict": ("decoder_pred", (3 * patch * patch, inner)),
    }
    depth = ledger.depth(f"{prefix}decoder_blocks.")
    for number in range(depth):
        block = {
            "norm1": (inner,),
            "attn.qkv": (3 * inner, inner),
            "attn.proj": (inner, inner),
            "norm2": (inner,),
            "mlp.fc1": (4 * inner, inner),
            "mlp.fc2": (inner, 4 * inner),
        }
        shapes |= {
            f"blocks.{number}.{name}": (f"decoder_blocks.{number}.{name}", shape) for name, shape in block.items()
        }
    links = [with_shape("objective.decoder.mask_token", token, (inner,), (1, 1, inner))]
    for ours, (theirs, shape) in shapes.items():
        for part in _PARTS:
            size = shape if part == "weight" else shape[:1]
            links.append(with_shape(f"objective.decoder.{ours}.{part}", f"{prefix}{theirs}.{part}", size, size))
    assumed: dict[str, JSON] = {
        "mask_ratio": 0.75,
        "normalise_target": True,
        "decoder_heads": heads or max(1, inner // _HEAD_WIDTH),
    }
    settings: dict[str, JSON] = {**assumed, "decoder_width": inner, "decoder_depth": depth}
    return Decoder(links=links, settings=settings, assumed=assumed)


def simmim_decoder(ledger: Ledger, prefix: str, *, embed_width: int, width: int, stride: int) -> Decoder:
    """Link SimMIM's mask token and one-layer decoder, if the file has both; else drop what there is of them.

    Args:
        ledger: The file.
        prefix: What stands before the encoder's names.
        embed_width: Of the encoder's first tokens.
        width: Of its last tokens.
        stride: Pixels between its last tokens.

    Raises:
        TensorMismatchError: a tensor of the decoder has another shape than its place.
    """
    token, decoder = f"{prefix}mask_token", f"{prefix.removesuffix('encoder.')}decoder."
    names = [name for name in ledger.tensors if name.startswith(decoder)]
    if token not in ledger or not names:
        ledger.drop([*names, token], "a mask token without decoder, or the reverse")
        return Decoder()
    outputs = 3 * stride * stride
    links = [
        with_shape("objective.mask_token", token, (embed_width,), (1, 1, embed_width)),
        with_shape("objective.head.weight", f"{decoder}0.weight", *((outputs, width, 1, 1),) * 2),
        with_shape("objective.head.bias", f"{decoder}0.bias", (outputs,), (outputs,)),
    ]
    assumed: dict[str, JSON] = {"mask_unit": 32, "mask_ratio": 0.6, "target_window": 47}
    return Decoder(links=links, settings=dict(assumed), assumed=assumed)


def _is_fixed(table: Tensor, grid: tuple[int, int]) -> bool:
    """Whether positions `[1, 1 + n, d]` are the sine-cosine ones after a zero row for the class token."""
    rows, cols = grid
    if table.shape[1] != rows * cols + 1 or table.shape[2] % 4 or table[:, 0].any():
        return False
    fixed = sin_cos_position(rows, cols, table.shape[2], base_rows=rows, base_cols=cols)
    return bool((table[0, 1:].float() - fixed).abs().max() <= _SAME_POSITION)
