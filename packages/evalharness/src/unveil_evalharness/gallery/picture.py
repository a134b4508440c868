"""A drawn image as a `Picture` of the report, and the rule by which examples are chosen."""

import hashlib
import io
from collections.abc import Sequence
from typing import Literal

from unveil_evalharness.gallery.canvas import ImageLike, fitted, to_image
from unveil_evalharness.task import Picture

__all__ = ["MAX_BYTES", "MAX_SIDE", "choose", "to_picture"]

MAX_SIDE = 860
"""Longest side of a picture in pixels: two images side by side, or a retrieval strip of six."""
MAX_BYTES = 120_000
"""A dozen pictures for each of a few tasks keep the report's one file within a few megabytes."""
_QUALITIES = (85, 75, 60, 45, 30)


def to_picture(image: ImageLike, caption: str = "", outcome: Literal["good", "bad", "example"] = "example") -> Picture:
    """`image` as a JPEG of at most `MAX_SIDE` pixels a side and about `MAX_BYTES`.

    Args:
        image: the drawn prediction.
        caption: what is seen, in words: ``"dog, taken for cat"``.
        outcome: whether the prediction was right, wrong, or neither can be said.
    """
    whole = to_image(image)
    small = fitted(whole, min(MAX_SIDE, max(whole.size)))
    encoded = b""
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=0 if quality >= 85 else 2)
        encoded = buffer.getvalue()
        if len(encoded) <= MAX_BYTES:
            break
    return Picture(encoded=encoded, caption=" ".join(caption.split()), outcome=outcome)


def choose(keys: Sequence[str], *, seed: int = 0, number: int = 12) -> list[int]:
    """Positions of `number` examples, by the SHA-256 of seed and key: the outcome has no say in it.

    The same items are chosen for every checkpoint and in whatever order the items come, so that galleries can be laid
    side by side; fewer are a subset of more. Positions are returned in ascending order.
    """
    ranked = sorted(range(len(keys)), key=lambda index: (_digest(seed, keys[index]), index))
    return sorted(ranked[: max(0, number)])


def _digest(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest()
