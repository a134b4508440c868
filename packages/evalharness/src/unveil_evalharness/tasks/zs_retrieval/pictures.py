"""Retrieval examples for the gallery: a query and the five nearest candidates, right ones ticked.

Queries are chosen by their keys alone, half of them captions and half images, so every checkpoint shows the same ones.
"""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from unveil_evalharness.gallery import choose, retrieval_strip, to_picture
from unveil_evalharness.task import Picture
from unveil_evalharness.tasks.zs_retrieval.captions import CaptionIndex
from unveil_evalharness.tasks.zs_retrieval.data import CaptionedImage

__all__ = ["retrieval_pictures"]

_NUM_EACH_WAY = 6
_NUM_FOUND = 5


def retrieval_pictures(
    images: np.ndarray,
    texts: np.ndarray,
    index: CaptionIndex,
    encoded: Callable[[], Iterator[CaptionedImage]],
    *,
    merge: bool,
) -> tuple[Picture, ...]:
    """Six captions with the images found for them, and six images with the captions found.

    Args:
        images: embeddings of the images.
        texts: embeddings of the distinct texts.
        index: whose captions they are.
        encoded: reads the images once more, in the same order; only those that are shown are decoded.
        merge: whether images that share a caption word for word are right answers to it.
    """
    words = index.texts
    image_of, text_of = index.image_of_caption, index.text_of_caption

    def says(image: int, text: int) -> bool:
        return bool(np.any((image_of == image) & (text_of == text)))

    captions = choose(index.caption_keys, number=_NUM_EACH_WAY)
    queries = choose(index.image_keys, number=_NUM_EACH_WAY)
    found_images = {c: _nearest(images @ texts[index.text[c]]) for c in captions}
    shown = {i for found in found_images.values() for i in found} | set(queries)
    pictures = {number: image.decode() for number, image in enumerate(encoded()) if number in shown}
    result = []
    for c, found in found_images.items():
        right = [(i == index.image[c]) or (merge and says(i, index.text[c])) for i in found]
        result.append(_picture(words[index.text[c]], [pictures[i] for i in found], right, "caption → image"))
    for i in queries:
        found = _nearest(texts @ images[i])
        right = [says(i, t) for t in found]
        result.append(_picture(pictures[i], [words[t] for t in found], right, "image → caption"))
    return tuple(result)


def _nearest(scores: np.ndarray) -> list[int]:
    return np.argsort(-scores, kind="stable")[:_NUM_FOUND].tolist()


def _picture(query: Image.Image | str, found: list, right: list[bool], direction: str) -> Picture:
    rank = right.index(True) + 1 if True in right else None
    where = f"right answer at rank {rank}" if rank else f"no right answer in the first {len(found)}"
    words = f"“{query}”: " if isinstance(query, str) else ""
    strip = retrieval_strip(query, found, right)
    return to_picture(strip, f"{direction}: {words}{where}", "good" if rank else "bad")
