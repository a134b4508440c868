"""Training images for objectives that take something from the data before their first step, such as a vocabulary."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unveil_pretrain.data.datasets import ExampleDataset
from unveil_pretrain.data.streams import VOCABULARY_STREAM, words
from unveil_pretrain.objectives.base import SampleImages

__all__ = ["images_of_samples"]

_BATCH = 64


def images_of_samples(
    dataset: ExampleDataset, *, seed: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> SampleImages:
    """A function that gives up to so many images under the fixed crop, on the CPU, as the encoder sees them.

    Which ones is a function of the seed and the sample ids; fewer images are a part of more.
    """
    offset, scale = (torch.tensor(values).reshape(3, 1, 1) * 255.0 for values in (mean, std))

    def images(most: int) -> Iterator[Float[Tensor, "b c h w"]]:
        ranked = np.argsort(words(seed, 0, dataset.sample_ids, VOCABULARY_STREAM), kind="stable")
        chosen = np.sort(ranked[:most])
        for start in range(0, len(chosen), _BATCH):
            pixels = [dataset.val_example(int(index)).image for index in chosen[start : start + _BATCH]]
            yield (torch.stack(pixels).float() - offset) / scale

    return images
