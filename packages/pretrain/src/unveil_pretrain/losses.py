"""Losses, one value per sample, so that validation can give a standard error and pair two checkpoints.

Every sample of a batch hides the same number of pixels, so the mean of the per-sample values is the batch loss of the
papers. Shapes: b samples, c channels, h × w pixels, m hidden patches or cells of p values, e embedding width.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int64
from torch import Tensor

__all__ = ["cell_l1", "masked_l1", "patch_mse", "present_mse", "smooth_l1", "token_cross_entropy"]


def masked_l1(
    prediction: Float[Tensor, "b c h w"], target: Float[Tensor, "b c h w"], mask: Bool[Tensor, "b h w"]
) -> Float[Tensor, " b"]:
    """Mean absolute error over the hidden pixels (mask = True), as SimMIM: Σ|x − x̂|·mask / (Σ mask + 1e-5) / c."""
    weights = mask[:, None].to(torch.float32)
    error = (prediction.float() - target.float()).abs() * weights
    return error.sum(dim=(1, 2, 3)) / (weights.sum(dim=(1, 2, 3)) + 1e-5) / prediction.shape[1]


def cell_l1(prediction: Float[Tensor, "b m p"], target: Float[Tensor, "b m p"], channels: int) -> Float[Tensor, " b"]:
    """`masked_l1` from the hidden cells alone: m cells of p = pixels · channels values."""
    error = (prediction.float() - target.float()).abs().sum(dim=(1, 2))
    num_pixels = prediction.shape[1] * prediction.shape[2] // channels
    return error / (num_pixels + 1e-5) / channels


def patch_mse(prediction: Float[Tensor, "b m p"], target: Float[Tensor, "b m p"]) -> Float[Tensor, " b"]:
    """Mean squared error over the values of the hidden patches (MAE, arXiv:2111.06377)."""
    return (prediction.float() - target.float()).square().mean(dim=(1, 2))


def token_cross_entropy(logits: Float[Tensor, "b m v"], tokens: Int64[Tensor, "b m"]) -> Float[Tensor, " b"]:
    """Mean cross-entropy over the hidden patches, in nats (BEiT, arXiv:2106.08254): v visual tokens to choose from."""
    return F.cross_entropy(logits.float().transpose(1, 2), tokens, reduction="none").mean(dim=1)


def smooth_l1(
    prediction: Float[Tensor, "b m d"], target: Float[Tensor, "b m d"], present: Bool[Tensor, "b m"]
) -> Float[Tensor, " b"]:
    """Mean over the values of the present tokens of e²/2 where |e| < 1, and |e| − 1/2 beyond (I-JEPA's code)."""
    error = F.smooth_l1_loss(prediction.float(), target.float(), reduction="none").mean(dim=2)
    return (error * present).sum(dim=1) / present.sum(dim=1)


def present_mse(
    prediction: Float[Tensor, "b m d"], target: Float[Tensor, "b m d"], present: Bool[Tensor, "b m"]
) -> Float[Tensor, " b"]:
    """Mean squared error over the values of the present tokens (I-JEPA's paper, arXiv:2301.08243, section 3)."""
    error = (prediction.float() - target.float()).square().mean(dim=2)
    return (error * present).sum(dim=1) / present.sum(dim=1)
