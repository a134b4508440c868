"""An offline tokenizer without weights: a visual token is the most similar patch of a vocabulary of training patches.

SplitMask (El-Nouby et al., arXiv:2112.10740) finds such a vocabulary as good a target as the discrete VAE of BEiT.
Similarity is the cosine of pixel values, as normalised for the encoder. The vocabulary is drawn from the training
images by a stateless rule, is the same for all steps, and lies in the checkpoint beside the weights.

Shapes: b images, n patches, p values of a patch, v visual tokens.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int64
from torch import Tensor, nn
from unveil_masking import noise

from unveil_pretrain.data.streams import VOCABULARY_STREAM
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import BuildContext, Objective
from unveil_pretrain.targets import patchify

__all__ = ["PatchVocabulary", "draw_vocabulary", "vocabulary_for"]

_STORED = f"{Objective.head_prefix}vocabulary.patches"
_ENTRIES_PER_IMAGE = 4  # where there are images enough
_MOST_PER_IMAGE = 24


class PatchVocabulary(nn.Module):
    """The vocabulary, and the way from patches to visual tokens."""

    patches: Tensor

    def __init__(self, patches: Float[Tensor, "v p"]) -> None:
        """Keep `patches`, rows of unit length."""
        super().__init__()
        self.register_buffer("patches", patches)

    def __len__(self) -> int:
        return len(self.patches)

    @property
    def content_hash(self) -> str:
        """Twelve hexadecimal digits of the entries and their order."""
        return hashlib.sha256(self.patches.cpu().contiguous().numpy().tobytes()).hexdigest()[:12]

    @torch.no_grad()
    def forward(self, patches: Float[Tensor, "b n p"]) -> Int64[Tensor, "b n"]:
        """The entry of largest cosine with each patch, in float32 whatever the precision of the step."""
        with torch.autocast(patches.device.type, enabled=False):
            # The patch's own length does not change which entry is nearest.
            return (patches.float() @ self.patches.T).argmax(dim=-1)


def vocabulary_for(context: BuildContext, size: int) -> PatchVocabulary:
    """The vocabulary of the checkpoint a run continues from, or one drawn from the training images.

    Raises:
        ConfigError: the training images do not have so many different patches.
    """
    if context.stored_heads is not None and _STORED in context.stored_heads:
        return PatchVocabulary(context.stored_heads[_STORED].clone())
    images = context.images(-(-size // _ENTRIES_PER_IMAGE))
    return PatchVocabulary(draw_vocabulary(images, context.encoder.patch_size, size))


def draw_vocabulary(images: Iterable[Float[Tensor, "b c h w"]], patch_size: int, size: int) -> Float[Tensor, "v p"]:
    """`size` different patches of unit length.

    Every image offers up to 24 patches, in the order of the noise of (the image's place, the patch's place). First come
    the first choices of all images, then the second ones, and so on. Patches that are zero, or equal to an earlier one
    up to 1/1000, are passed over.

    Raises:
        ConfigError: there are not so many different patches.
    """
    chosen, num_images = [], 0
    for batch in images:
        patches = patchify(batch, patch_size)
        ids = np.arange(num_images, num_images + len(batch), dtype=np.int64)
        index = np.arange(VOCABULARY_STREAM + 1, VOCABULARY_STREAM + 1 + patches.shape[1], dtype=np.int64)
        order = np.argsort(noise(0, 0, ids, index), axis=1, kind="stable")[:, :_MOST_PER_IMAGE]
        chosen.append(torch.take_along_dim(patches, torch.from_numpy(order.copy())[:, :, None], 1))
        num_images += len(batch)
    if not chosen:
        raise ConfigError("a vocabulary of patches needs training images, and there are none; give data")
    candidates = torch.cat(chosen).transpose(0, 1).flatten(0, 1).float()
    candidates = F.normalize(candidates[candidates.norm(dim=1) > 1e-6], dim=1)
    _, first = np.unique((candidates * 1000).round().to(torch.int16).numpy(), axis=0, return_index=True)
    kept = np.sort(first)[:size]
    if len(kept) < size:
        raise ConfigError(
            f"vocab_size is {size}, but {num_images} training images give {len(kept)} different patches; "
            f"give a vocab_size of at most {len(kept)}, or more data"
        )
    return candidates[torch.from_numpy(kept)].contiguous()
