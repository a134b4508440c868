"""The nearest training images of each validation image, found block by block.

Axes: n validation images, m training images, d features, k neighbours.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

__all__ = ["nearest"]

_QUERIES = 512
_CANDIDATES = 65_536
"""Sizes of the blocks; with both fixed the result does not depend on the batch size of the encoder."""


def nearest(
    queries: Float[Tensor, "n d"], candidates: Float[Tensor, "m d"], *, k: int, device: str
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Cosine similarities, largest first, and positions of the `k` most similar candidates; at most `m` of them.

    Args:
        queries: features of the images to classify.
        candidates: features of the images that vote.
        k: how many.
        device: where to compute.
    """
    k = min(k, len(candidates))
    normalised = functional.normalize(candidates, dim=1)
    similarities, positions = [], []
    for begin in range(0, len(queries), _QUERIES):
        block = functional.normalize(queries[begin : begin + _QUERIES], dim=1).to(device)
        values, indices = _nearest_of_block(block, normalised, k)
        similarities.append(values.cpu())
        positions.append(indices.cpu())
    return torch.cat(similarities), torch.cat(positions)


def _nearest_of_block(queries: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Keeps the best of the blocks seen so far, so that no more than one block of similarities is in memory."""
    values = queries.new_empty(len(queries), 0)
    indices = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for begin in range(0, len(candidates), _CANDIDATES):
        found = queries @ candidates[begin : begin + _CANDIDATES].to(queries.device).T
        numbers = torch.arange(begin, begin + found.shape[1], device=queries.device).expand(len(queries), -1)
        values, indices = torch.cat([values, found], dim=1), torch.cat([indices, numbers], dim=1)
        values, order = values.topk(min(k, values.shape[1]), dim=1)
        indices = indices.gather(1, order)
    return values, indices
