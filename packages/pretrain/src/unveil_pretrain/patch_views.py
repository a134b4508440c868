"""Images seen through some of their patches: one mask, or complementary masks that together cover every patch.

FLIP's table 1d (arXiv:2212.00794): masked at inference, and the ensemble of complementary views. The first view of the
ensemble is the mask that validation uses, so that "masked" and "ensemble" differ in the other views alone.

Shapes: b images, n patches, k kept, v views, e embedding width.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize
from unveil_backbones import ImageTextPair
from unveil_masking import noise

from unveil_pretrain.errors import ConfigError

__all__ = ["complementary_keeps", "vectors_of_view"]


def complementary_keeps(
    sample_ids: Int64[Tensor, " b"], num_patches: int, num_kept: int, *, seed: int, epoch: int = 0
) -> Int64[Tensor, "v b k"]:
    """The kept patches of ⌈n / k⌉ views that together show every patch, each ascending.

    Patches are ordered by noise and cut into pieces of k; where k does not divide n, the last piece begins earlier and
    shows some patches of the piece before it again. The first is `RandomMask`'s keep set for the same key.

    Raises:
        ConfigError: `num_kept` is not between 1 and n.
    """
    if not 1 <= num_kept <= num_patches:
        raise ConfigError(f"a view keeps {num_kept} of {num_patches} patches; lower the mask ratio")
    index = torch.arange(num_patches)
    order = noise(seed, epoch, sample_ids.cpu(), index).to(torch.int64).argsort(dim=1, stable=True)
    starts = [min(start, num_patches - num_kept) for start in range(0, num_patches, num_kept)]
    views = [order[:, start : start + num_kept].sort(dim=1).values for start in starts]
    return torch.stack(views).to(sample_ids.device)


def vectors_of_view(
    pair: ImageTextPair,
    images: Float[Tensor, "b c h w"],
    keeps: Int64[Tensor, "v b k"],
) -> Float[Tensor, "b e"]:
    """Unit vectors of images: of the only view, or of the mean of the views' unit vectors."""
    grid = pair.encoder.grid(images.shape[-2], images.shape[-1])
    vectors = [pair.encode_image_tokens(pair.encoder.embed(images, keep), grid, keep) for keep in keeps]
    return normalize(torch.stack(vectors).mean(dim=0), dim=-1)
