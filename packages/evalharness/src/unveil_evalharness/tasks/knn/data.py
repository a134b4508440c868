"""Which images vote and which are classified: the folders or shards of ``imagenet/``."""

from pathlib import Path

from unveil_evalharness.tasks.classification.data import labelled_images
from unveil_evalharness.tasks.imagenet_ft.data import ImageFolder, folder_hash
from unveil_evalharness.tasks.knn.config import KnnProtocol

__all__ = ["folder_hash", "splits"]


def splits(data_root: Path, protocol: KnnProtocol, limit: int | None) -> tuple[ImageFolder, ImageFolder]:
    """The images that vote and the images that are classified.

    Raises:
        DataError: images are missing or differently labelled in train and val.
    """
    return labelled_images(data_root, max_train=protocol.max_train_images, max_val=protocol.max_val_images, limit=limit)
