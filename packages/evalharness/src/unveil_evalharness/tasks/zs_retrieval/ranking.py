"""Exact retrieval ranks in both directions from one product of the embeddings, in tiles; numpy only.

The rank of a query is one plus the number of wrong candidates that score at least as high as its best right candidate.
It is counted, not sorted: in every tile of the score matrix, ``scores >= best right score`` is summed along the rows
for the images and along the columns for the captions, so that neither the whole matrix nor any ordering is ever made.
Equal scores count against the query (a documented choice: an encoder that maps everything to one point must not look
perfect); so do scores that are no numbers.

The best right scores have to be known before counting. They are taken from the very tiles that are counted, kept for
that or computed once more: another routine for them would differ in the last bit, and a candidate could then beat
itself. With captions in the order of their images few tiles hold right pairs.

Axes: ``n`` images, ``u`` distinct texts, ``c`` captions, ``r`` right (caption, image) pairs, ``d`` embedding width.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

__all__ = ["ranks_both_ways"]

_TILE_IMAGES = 240
"""At most 255: counts along the columns of a tile are kept in bytes."""
_TILE_TEXTS = 2048
_KEPT_BYTES = 256 * 2**20
"""Tiles with right pairs are kept up to this size in all, beyond it computed twice."""


def ranks_both_ways(
    images: Float[np.ndarray, "n d"],
    texts: Float[np.ndarray, "u d"],
    text_of_caption: Int[np.ndarray, " c"],
    pair_caption: Int[np.ndarray, " r"],
    pair_image: Int[np.ndarray, " r"],
    *,
    tile: tuple[int, int] = (_TILE_IMAGES, _TILE_TEXTS),
) -> tuple[Int[np.ndarray, " c"], Int[np.ndarray, " n"]]:
    """Rank of the best right image of every caption, and of the best right caption of every image; 1 is first.

    Args:
        images: embeddings of the images.
        texts: embeddings of the distinct texts.
        text_of_caption: for each caption, its row in `texts`. Captions with the same words share a row, so that their
            scores are equal to the last bit.
        pair_caption: caption of each right pair; every caption occurs at least once.
        pair_image: image of each right pair; every image occurs at least once.
        tile: images and texts of one tile, at most 255 images; does not change the result's meaning.

    Raises:
        ValueError: a caption or an image has no right pair, or the tile is impossible.
    """
    if not 1 <= tile[0] <= 255 or tile[1] < 1:
        raise ValueError(f"a tile has 1 to 255 images and at least one text, got {tile}")
    by_text = np.argsort(text_of_caption, kind="stable")
    place = np.empty_like(by_text)
    place[by_text] = np.arange(len(by_text))
    tiles = _Tiles(images, texts, text_of_caption[by_text], place[pair_caption], pair_image, tile)
    best_image = np.full(len(by_text), -np.inf, dtype=images.dtype)
    best_text = np.full(len(images), -np.inf, dtype=images.dtype)
    for part in tiles.parts(only_right=True):
        right = tiles.scores(part, keep=True)[part.rows, part.columns]
        np.fmax.at(best_text[part.images], part.rows, right)
        np.fmax.at(best_image[part.captions], part.columns, right)
    image_ranks, sorted_ranks = np.ones(len(images), dtype=np.int64), np.ones(len(by_text), dtype=np.int64)
    for part in tiles.parts(only_right=False):
        scores = tiles.scores(part)
        below = scores < best_text[part.images, None]
        image_ranks[part.images] += _num_false(below, axis=1)
        np.subtract.at(image_ranks[part.images], part.rows, ~below[part.rows, part.columns])
        np.less(scores, best_image[None, part.captions], out=below)
        sorted_ranks[part.captions] += _num_false(below, axis=0)
        np.subtract.at(sorted_ranks[part.captions], part.columns, ~below[part.rows, part.columns])
    return sorted_ranks[place], image_ranks


def _num_false(below: np.ndarray, *, axis: int) -> np.ndarray:
    """False entries along an axis of a tile: "not below" rather than "at least", for comparisons with NaN are false."""
    if axis == 1:
        return below.shape[1] - np.fromiter(map(np.count_nonzero, below), dtype=np.int64, count=len(below))
    return len(below) - np.add.reduce(below.view(np.uint8), axis=0, dtype=np.uint8).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Part:
    """One tile: its images, its texts and the captions with these texts, and the right pairs in it."""

    images: slice
    texts: slice
    captions: slice
    rows: Int[np.ndarray, " r"]
    """Image of each right pair, counted within the tile."""
    columns: Int[np.ndarray, " r"]
    """Caption of each right pair, counted within the tile."""


class _Tiles:
    """The score matrix in tiles; captions come in the order of their texts: a text lies in one column of tiles."""

    def __init__(
        self,
        images: np.ndarray,
        texts: np.ndarray,
        text_of_caption: np.ndarray,
        pair_caption: np.ndarray,
        pair_image: np.ndarray,
        tile: tuple[int, int],
    ) -> None:
        if len(np.unique(pair_caption)) != len(text_of_caption) or len(np.unique(pair_image)) != len(images):
            raise ValueError("the right pairs must name each caption and each image at least once")
        self._images, self._texts, self._text = images, texts, text_of_caption
        self._tile, self._across = tile, -(-len(texts) // tile[1])
        number = pair_image // tile[0] * self._across + text_of_caption[pair_caption] // tile[1]
        order = np.argsort(number, kind="stable")
        self._caption, self._image, self._number = pair_caption[order], pair_image[order], number[order]
        self._kept: dict[tuple[int, int], np.ndarray] = {}
        self._room = _KEPT_BYTES
        self._buffer = np.empty(min(tile[0], len(images)) * min(tile[1], len(texts)), dtype=images.dtype)

    def parts(self, *, only_right: bool) -> Iterator[_Part]:
        """All tiles row by row, or only those that hold a right pair."""
        height, width = self._tile
        for top in range(0, len(self._images), height):
            for left in range(0, len(self._texts), width):
                number = top // height * self._across + left // width
                first, last = np.searchsorted(self._number, (number, number + 1))
                if first == last and only_right:
                    continue
                start, stop = np.searchsorted(self._text, (left, left + width))
                yield _Part(
                    slice(top, min(top + height, len(self._images))),
                    slice(left, min(left + width, len(self._texts))),
                    slice(int(start), int(stop)),
                    self._image[first:last] - top,
                    self._caption[first:last] - start,
                )

    def scores(self, part: _Part, *, keep: bool = False) -> np.ndarray:
        """Scores of the tile's images with its captions, the same bits each time; overwritten by the next call.

        Args:
            part: the tile.
            keep: keep a copy for the next call with this tile, while there is room.
        """
        place = (part.images.start, part.texts.start)
        if place in self._kept:
            return self._kept.pop(place)
        scores = self._computed(part)
        if keep and scores.nbytes <= self._room:
            self._room -= scores.nbytes
            self._kept[place] = scores.copy()
        return scores

    def _computed(self, part: _Part) -> np.ndarray:
        images, texts = self._images[part.images], self._texts[part.texts]
        out = self._buffer[: len(images) * len(texts)].reshape(len(images), len(texts))
        scores = np.matmul(images, texts.T, out=out)
        columns = self._text[part.captions] - part.texts.start
        return scores if np.array_equal(columns, np.arange(len(texts))) else scores[:, columns]
