"""FLIP's reconstruction head: MAE's task beside the contrastive one, on the same encoding of the kept patches.

The paper (arXiv:2212.00794, table 1f) found that it does not help: 69.4 against 69.6 with 50 % dropped, 67.9 against
68.2 with 75 %. It is here so that this can be checked. Target and loss are MAE's (arXiv:2111.06377): normalised pixels
of the patches that were dropped.

Shapes: b samples, m tokens of the encoder, p values of a patch.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from unveil_backbones import Encoder
from unveil_backbones.position import sin_cos_position
from unveil_masking import Partition

from unveil_pretrain.losses import patch_mse
from unveil_pretrain.objectives.mae import MAEDecoder
from unveil_pretrain.targets import normalise_patches, patchify

__all__ = ["Reconstruction"]


class Reconstruction(nn.Module):
    """A small decoder from the encoding of kept patches to the pixels of the dropped ones."""

    def __init__(self, encoder: Encoder, *, width: int, depth: int, heads: int, weight: float) -> None:
        """Build the decoder; `weight` is the factor of its loss beside the contrastive one."""
        super().__init__()
        self.weight = weight
        self.patch_size, self.num_prefix = encoder.patch_size, encoder.num_prefix_tokens
        self.decoder = MAEDecoder(
            encoder.width, width=width, depth=depth, heads=heads, num_outputs=encoder.patch_size**2 * 3
        )

    def forward(
        self, encoded: Float[Tensor, "b m e"], images: Float[Tensor, "b c h w"], partition: Partition[Tensor]
    ) -> Float[Tensor, " b"]:
        """Mean squared error of each sample over its dropped patches, not weighted.

        Args:
            encoded: What the encoder returned for the kept patches, prefix tokens first.
            images: The whole images.
            partition: Which patches were kept.
        """
        rows, cols = partition.grid.rows, partition.grid.cols
        positions = sin_cos_position(
            rows, cols, self.decoder.width, base_rows=rows, base_cols=cols, device=encoded.device
        )
        prediction = self.decoder(encoded, partition, positions, num_prefix=self.num_prefix, permuted=True)
        patches = patchify(images, self.patch_size)
        target = normalise_patches(torch.take_along_dim(patches, partition.hidden[:, :, None], 1))
        return patch_mse(prediction, target)
