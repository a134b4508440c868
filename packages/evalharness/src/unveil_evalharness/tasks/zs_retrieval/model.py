"""Image and text embeddings of a checkpoint's towers.

Axes: ``b`` batch, ``c h w`` pixels, ``q`` items, ``d`` embedding width.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import unveil_backbones
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from unveil_backbones.manifest import Preprocessing

from unveil_evalharness.errors import ProtocolError
from unveil_evalharness.tasks.zs_retrieval.data import CaptionedImage

__all__ = ["PairEmbedder", "to_tensor"]

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


class PairEmbedder:
    """The two towers of a checkpoint, ready to embed images and texts without gradients."""

    def __init__(self, path: Path, preprocessing: Preprocessing, *, device: str, batch_size: int) -> None:
        pair, tokenizer = unveil_backbones.load_pair(path)
        self._pair = pair.eval().to(device)
        self._tokenizer = tokenizer
        self._preprocessing = preprocessing
        self._device = device
        self._batch_size = batch_size

    def images(self, images: Iterable[CaptionedImage]) -> Float[np.ndarray, "q d"]:
        """L2-normalised embeddings of the images, in order; decodes one batch at a time."""
        parts = []
        for batch in _batches(images, self._batch_size):
            pixels = torch.stack([to_tensor(image.decode(), self._preprocessing) for image in batch])
            with torch.inference_mode():
                parts.append(self._pair.encode_image(pixels.to(self._device)).float().cpu().numpy())
        return np.concatenate(parts)

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "q d"]:
        """L2-normalised embeddings of the texts, in order."""
        parts = []
        for batch in _batches(texts, self._batch_size):
            ids = torch.as_tensor(np.asarray(self._tokenizer(list(batch))))
            with torch.inference_mode():
                parts.append(self._pair.encode_text(ids.to(self._device)).float().cpu().numpy())
        return np.concatenate(parts)


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
