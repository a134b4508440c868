"""Near-duplicates between two sets of images: perceptual hashes, and pairs of hashes that differ in few bits.

Every image has two hashes of 64 bits, pHash (low frequencies of a cosine transform) and dHash (signs of differences
between neighbours), as imagehash computes them. The distance of two images is the larger of the two numbers of
differing bits: look-alikes of one class often agree in one hash, copies agree in both.

Pairs are found without comparing all with all. The pHash is cut into four words of 16 bits; if two hashes differ in
at most d bits, one of the four words differs in at most ⌊d / 4⌋ (Norouzi, Punjani and Fleet, "Fast search in Hamming
space with multi-index hashing", CVPR 2012). The left hashes are sorted by each word, and the right ones look up
theirs with every change of so few bits. A million against fifty thousand at distance 8 takes some 4·10⁸ looks instead
of 5·10¹⁰.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import Any, Final

import numpy as np
from PIL import Image

from unveil_pretrain.data.datasets import image_extension
from unveil_pretrain.data.decode import decode
from unveil_pretrain.data.samples import Samples
from unveil_pretrain.errors import ConfigError, DataError

__all__ = ["DEFAULT_DISTANCE", "MAX_DISTANCE", "near_pairs", "perceptual_hashes"]

DEFAULT_DISTANCE: Final = 8
"""Bits of 64; docs/data.md says what is found with it, and how often distinct images are taken for copies."""

MAX_DISTANCE: Final = 11
"""Largest distance that can be asked for; beyond it, a word of 16 bits may differ in three."""

_WORDS: Final = 4
_WORD_BITS: Final = 16
_RIGHT_AT_ONCE: Final = 4096


def perceptual_hashes(
    samples: Samples, *, num_workers: int, tell: Callable[[int], None] = lambda done: None
) -> tuple[np.ndarray, dict[int, str]]:
    """The pHash and dHash of every image (uint64 [n, 2]), and what was wrong with those that cannot be read, by index.

    The hashes of images that cannot be read are 0; leave them out.

    Args:
        samples: The images.
        num_workers: Threads; 0 for none besides the caller's.
        tell: Hears how many images are done, now and then.

    Raises:
        ConfigError: imagehash is not installed.
    """
    functions = _hash_functions()
    hashes = np.zeros((len(samples), len(functions)), dtype=np.uint64)
    unreadable: dict[int, str] = {}

    def one(index: int) -> None:
        try:
            files = samples.read(index)
            extension = image_extension(tuple(files))
            if extension is None:
                raise DataError(f"{samples.where(index)}: no image, or several")
            image = Image.fromarray(decode(files[extension], samples.where(index)))
        except DataError as error:
            unreadable[index] = str(error)
            return
        for column, function in enumerate(functions):
            bits = np.asarray(function(image).hash, dtype=np.uint8).ravel()
            hashes[index, column] = np.frombuffer(np.packbits(bits).tobytes(), dtype=">u8")[0]

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        for done, _ in enumerate(pool.map(one, range(len(samples))), start=1):
            if done % 1000 == 0:
                tell(done)
    return hashes, dict(sorted(unreadable.items()))


def near_pairs(left: np.ndarray, right: np.ndarray, *, max_distance: int) -> np.ndarray:
    """All pairs of images whose hashes differ in at most so many bits each.

    Args:
        left: uint64 [n, 2], as `perceptual_hashes` gives them.
        right: uint64 [m, 2]; the shorter side is the better one here.
        max_distance: 0 to `MAX_DISTANCE`.

    Returns:
        int64 [p, 3]: index into left, index into right, distance; sorted by right, distance, left.

    Raises:
        ConfigError: the distance is out of range.
    """
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise ConfigError(f"a distance of {max_distance} bits; give 0 to {MAX_DISTANCE}")
    found = [np.zeros((0, 3), dtype=np.int64)]
    for start in range(0, len(right), _RIGHT_AT_ONCE):
        chunk = right[start : start + _RIGHT_AT_ONCE]
        for candidates, owners in _candidates(left[:, 0], chunk[:, 0], max_distance // _WORDS):
            near = _num_bits(left[candidates, 0] ^ chunk[owners, 0]) <= max_distance
            candidates, owners = candidates[near], owners[near]
            distances = _num_bits(left[candidates] ^ chunk[owners]).max(axis=1, initial=0)
            near = distances <= max_distance
            found.append(np.stack([candidates[near], owners[near] + start, distances[near]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[np.lexsort((pairs[:, 0], pairs[:, 2], pairs[:, 1]))]


def _candidates(left: np.ndarray, right: np.ndarray, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices into left and right of pairs whose words agree somewhere but for `radius` bits; pairs may come again."""
    masks = _changes(radius)
    for number in range(_WORDS):
        shift = np.uint64(number * _WORD_BITS)
        of_left = ((left >> shift) & np.uint64(0xFFFF)).astype(np.uint16)
        order = np.argsort(of_left, kind="stable")
        ordered = of_left[order]
        of_right = ((right >> shift) & np.uint64(0xFFFF)).astype(np.uint16)
        for mask in masks:
            wanted = of_right ^ mask
            first = np.searchsorted(ordered, wanted, "left")
            counts = np.searchsorted(ordered, wanted, "right") - first
            owners = np.repeat(np.arange(len(right)), counts)
            # Position of each candidate within its owner's run of equal words.
            within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
            yield order[np.repeat(first, counts) + within], owners


def _num_bits(values: np.ndarray) -> np.ndarray:
    """Set bits of each uint64, as int64, by sums of ever wider fields (NumPy before 2.0 has no function for it)."""
    values = values - ((values >> np.uint64(1)) & np.uint64(0x5555555555555555))
    values = (values & np.uint64(0x3333333333333333)) + ((values >> np.uint64(2)) & np.uint64(0x3333333333333333))
    values = (values + (values >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return ((values * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.int64)


def _changes(radius: int) -> Sequence[np.uint16]:
    """Every change of at most `radius` of 16 bits."""
    chosen = [bits for count in range(radius + 1) for bits in combinations(range(_WORD_BITS), count)]
    return [np.uint16(sum(1 << bit for bit in bits)) for bits in chosen]


def _hash_functions() -> tuple[Callable[[Image.Image], Any], ...]:
    try:
        import imagehash
    except ImportError as error:
        raise ConfigError(
            "perceptual hashes need imagehash; install it with: pip install 'unveil-pretrain[audit]'"
        ) from error
    return imagehash.phash, imagehash.dhash
