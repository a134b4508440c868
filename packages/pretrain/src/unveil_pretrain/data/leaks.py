"""Training images that are near-duplicates of validation images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from unveil_pretrain.data.near_duplicates import near_pairs, perceptual_hashes
from unveil_pretrain.data.samples import Samples

__all__ = ["Leak", "find_leaks", "leaks_to_text"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """A pair of images that look the same."""

    train: str
    """Key of the training sample."""
    val: str
    """Key of the validation sample."""
    distance: int
    """Bits of 64, see `near_duplicates.py`."""


def find_leaks(
    train: Samples,
    val: Samples,
    *,
    max_distance: int,
    num_workers: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[list[Leak], list[str]]:
    """The pairs, and what was wrong with every image that could not be compared.

    Raises:
        ConfigError: the distance is out of range, or imagehash is not installed.
    """
    unreadable: list[str] = []
    hashes: list[np.ndarray] = []
    readable: list[np.ndarray] = []
    for name, samples in (("training", train), ("validation", val)):
        tell(f"hashing {len(samples):,} {name} images")
        found, broken = perceptual_hashes(samples, num_workers=num_workers, tell=lambda done: tell(f"{done:,} done"))
        kept = np.array([index for index in range(len(samples)) if index not in broken], dtype=np.int64)
        unreadable += broken.values()
        readable.append(kept)
        hashes.append(found[kept])
    pairs = near_pairs(hashes[0], hashes[1], max_distance=max_distance)
    leaks = [
        Leak(train=train.keys[readable[0][left]], val=val.keys[readable[1][right]], distance=int(distance))
        for left, right, distance in pairs
    ]
    return leaks, unreadable


def leaks_to_text(leaks: Sequence[Leak]) -> str:
    """A table with tabs, nearest pairs first."""
    rows = [f"{leak.distance}\t{leak.train}\t{leak.val}" for leak in sorted(leaks, key=lambda leak: leak.distance)]
    return "\n".join(["distance\ttrain\tval", *rows, ""])
