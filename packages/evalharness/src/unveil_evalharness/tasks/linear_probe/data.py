"""Which images are fitted, on which of them the penalty is chosen, and which are classified."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from unveil_evalharness.engine.stream import Purpose, derive_seed
from unveil_evalharness.tasks.classification.data import labelled_images
from unveil_evalharness.tasks.imagenet_ft.data import ImageFolder, folder_hash
from unveil_evalharness.tasks.linear_probe.config import LinearProbeProtocol

__all__ = ["folder_hash", "held_out", "splits"]

_SPLIT_SEED = 1


def splits(data_root: Path, protocol: LinearProbeProtocol, limit: int | None) -> tuple[ImageFolder, ImageFolder]:
    """The images that are fitted and the images that are classified.

    Raises:
        DataError: images are missing or differently labelled in train and val.
    """
    return labelled_images(data_root, max_train=protocol.max_train_images, max_val=protocol.max_val_images, limit=limit)


def held_out(labels: Int[np.ndarray, " n"], fraction: float) -> Bool[np.ndarray, " n"]:
    """Marks a fixed pseudo-random `fraction` of the images of each class, rounded to a whole number.

    A class keeps at least one image to be fitted. The choice depends on nothing but the labels, so that every
    checkpoint and seed chooses on the same images.
    """
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        number = min(round(fraction * len(members)), len(members) - 1)
        order = np.random.default_rng(derive_seed(_SPLIT_SEED, Purpose.SUBSET, label)).permutation(len(members))
        chosen[members[order[:number]]] = True
    return chosen
