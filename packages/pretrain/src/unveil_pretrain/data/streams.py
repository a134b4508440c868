"""Names for the independent random streams of the data pipeline.

Every draw is `unveil_masking.noise(seed, epoch, sample_id, index)`. Masks use small indices (one per token), so the
pipeline's streams start far above them: shuffling, cropping and choosing a caption never share a number with a mask or
with each other.
"""

from typing import Final

import numpy as np
from unveil_masking import noise

__all__ = [
    "AUGMENT_STREAM",
    "BALANCE_STREAM",
    "CAPTION_STREAM",
    "CLIP_STREAM",
    "DROP_STREAM",
    "ORDER_STREAM",
    "RETRY_STREAM",
    "SHARD_STREAM",
    "SUBSET_STREAM",
    "VOCABULARY_STREAM",
    "draw_block",
    "draws",
    "words",
]

ORDER_STREAM: Final = 0x2000_0000
AUGMENT_STREAM: Final = 0x2100_0000
CAPTION_STREAM: Final = 0x2200_0000
SUBSET_STREAM: Final = 0x2300_0000
DROP_STREAM: Final = 0x2400_0000
VOCABULARY_STREAM: Final = 0x2500_0000
CLIP_STREAM: Final = 0x2700_0000
BALANCE_STREAM: Final = 0x2800_0000
SHARD_STREAM: Final = 0x2900_0000
RETRY_STREAM: Final = 0x2A00_0000

_WORD: Final = 0xFFFF_FFFF
_ROUNDS: Final = 10
_MULTIPLIERS: Final = (0xD251_1F53, 0xCD9E_8D57)
_WEYL: Final = (0x9E37_79B9, 0xBB67_AE85)


def draws(seed: int, epoch: int, sample_id: int, stream: int, count: int) -> np.ndarray:
    """`count` uniform numbers in [0, 1) (float64) that depend on nothing but the arguments."""
    index = np.arange(stream, stream + count, dtype=np.int64)
    return noise(seed, epoch, np.array([sample_id], dtype=np.int64), index)[0] / 2.0**32


def draw_block(seed: int, epoch: int, sample_id: int, first: int) -> tuple[float, float, float, float]:
    """`draws` of the four indices from `first`, which is a multiple of 4, as Python numbers.

    Philox4x32-10 (Salmon et al., SC 2011) on Python's integers: for four numbers, NumPy's calls cost ten times that.
    """
    one, two, three, four = first >> 2, sample_id & _WORD, (sample_id >> 32) & _WORD, epoch & _WORD
    key_one, key_two = seed & _WORD, seed >> 32
    for _ in range(_ROUNDS):
        product, other = one * _MULTIPLIERS[0], three * _MULTIPLIERS[1]
        one, two, three, four = (
            (other >> 32) ^ two ^ key_one,
            other & _WORD,
            (product >> 32) ^ four ^ key_two,
            product & _WORD,
        )
        key_one, key_two = (key_one + _WEYL[0]) & _WORD, (key_two + _WEYL[1]) & _WORD
    return one / 2.0**32, two / 2.0**32, three / 2.0**32, four / 2.0**32


def words(seed: int, epoch: int | np.ndarray, sample_ids: np.ndarray, index: int) -> np.ndarray:
    """One 32-bit number per sample id (int64 [b]), from one index of a stream."""
    return noise(seed, epoch, sample_ids, np.array([index], dtype=np.int64))[:, 0]
