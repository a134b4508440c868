"""Names for the independent random streams of the data pipeline.

Every draw is `unveil_masking.noise(seed, epoch, sample_id, index)`. Masks use small indices (one per token), so the
pipeline's streams start far above them: shuffling, cropping and choosing a caption never share a number with a mask or
with each other.
"""

from typing import Final

import numpy as np
from unveil_masking import noise

__all__ = ["AUGMENT_STREAM", "CAPTION_STREAM", "ORDER_STREAM", "SUBSET_STREAM", "draws", "words"]

ORDER_STREAM: Final = 0x2000_0000
AUGMENT_STREAM: Final = 0x2100_0000
CAPTION_STREAM: Final = 0x2200_0000
SUBSET_STREAM: Final = 0x2300_0000


def draws(seed: int, epoch: int, sample_id: int, stream: int, count: int) -> np.ndarray:
    """`count` uniform numbers in [0, 1) (float64) that depend on nothing but the arguments."""
    index = np.arange(stream, stream + count, dtype=np.int64)
    return noise(seed, epoch, np.array([sample_id], dtype=np.int64), index)[0] / 2.0**32


def words(seed: int, epoch: int | np.ndarray, sample_ids: np.ndarray, index: int) -> np.ndarray:
    """One 32-bit number per sample id (int64 [b]), from one index of a stream."""
    return noise(seed, epoch, sample_ids, np.array([index], dtype=np.int64))[:, 0]
