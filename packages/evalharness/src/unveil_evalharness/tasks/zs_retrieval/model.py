"""Image and text embeddings of a checkpoint's towers.

Axes: ``b`` batch, ``c h w`` pixels, ``q`` items, ``d`` embedding width.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
import unveil_backbones
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from unveil_backbones.manifest import Preprocessing

from unveil_evalharness.errors import ProtocolError

__all__ = ["ROWS", "Decodable", "PairEmbedder", "to_tensor"]

ROWS = 32
"""Images or texts in one call of a tower."""
_MOST_THREADS = 8

_Item = TypeVar("_Item")
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def to_tensor(image: Image.Image, preprocessing: Preprocessing) -> Float[Tensor, "c h w"]:
    """Resizes so that the image covers ``image_size / crop_fraction``, cuts the centre and normalises.

    For a square size this is the usual "resize the short side, centre crop".

    Raises:
        ProtocolError: the checkpoint names an unknown interpolation.
    """
    if preprocessing.interpolation not in _RESAMPLING:
        raise ProtocolError(
            f"the checkpoint's interpolation is {preprocessing.interpolation!r}; known: {', '.join(_RESAMPLING)}"
        )
    height, width = preprocessing.image_size
    scale = max(height / image.height, width / image.width) / preprocessing.crop_fraction
    # Rounding may not fall below the crop, or the cut would reach outside the image.
    resized_width = max(width, round(image.width * scale))
    resized_height = max(height, round(image.height * scale))
    resized = image.resize((resized_width, resized_height), _RESAMPLING[preprocessing.interpolation])
    left, top = (resized_width - width) // 2, (resized_height - height) // 2
    cropped = resized.crop((left, top, left + width, top + height))
    pixels = np.asarray(cropped, dtype=np.float32) / 255.0
    normalised = (pixels - np.array(preprocessing.mean, np.float32)) / np.array(preprocessing.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1)))


@runtime_checkable
class Decodable(Protocol):
    """An image that is decoded when it is needed."""

    def decode(self) -> Image.Image:
        """The image as RGB."""
        ...


class PairEmbedder:
    """The two towers of a checkpoint, ready to embed images and texts without gradients.

    Every call of a tower sees `ROWS` rows, the last one filled up, whatever batch size was asked for: kernels sum in
    another order for another number of rows, and two nearly equal scores could change places. So no metric depends on
    ``--batch-size``, to the last bit.
    """

    def __init__(self, path: Path, preprocessing: Preprocessing, *, device: str) -> None:
        pair, tokenizer = unveil_backbones.load_pair(path)
        self._pair = pair.eval().to(device)
        self._tokenizer = tokenizer
        self._preprocessing = preprocessing
        self._device = device

    @property
    def text_length(self) -> int:
        """Word pieces the text tower reads, special ones included; what comes after is cut."""
        return self._tokenizer.length

    def images(self, images: Iterable[Decodable]) -> Float[np.ndarray, "q d"]:
        """L2-normalised embeddings of the images, in order; decodes a few at a time, in threads."""
        parts = []
        for batch in _batches(self._prepared(images), ROWS):
            pixels = _filled(torch.stack(batch)).to(self._device)
            with torch.inference_mode():
                parts.append(self._pair.encode_image(pixels)[: len(batch)].float().cpu().numpy())
        return np.concatenate(parts)

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "q d"]:
        """L2-normalised embeddings of the texts, in order."""
        parts = []
        for batch in _batches(texts, ROWS):
            ids = _filled(torch.as_tensor(np.asarray(self._tokenizer(list(batch)))))
            with torch.inference_mode():
                parts.append(self._pair.encode_text(ids)[: len(batch)].float().cpu().numpy())
        return np.concatenate(parts)

    def _prepared(self, images: Iterable[Decodable]) -> Iterator[Float[Tensor, "c h w"]]:
        def pixels(image: Decodable) -> Float[Tensor, "c h w"]:
            return to_tensor(image.decode(), self._preprocessing)

        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
            waiting: deque[Future[Tensor]] = deque()
            for image in images:
                waiting.append(pool.submit(pixels, image))
                if len(waiting) > 2 * ROWS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def _filled(rows: Tensor) -> Tensor:
    """`rows` followed by copies of the first one, `ROWS` in all."""
    return torch.cat([rows, rows[:1].expand(ROWS - len(rows), *rows.shape[1:])])


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
