"""A dozen test images with what they were taken for."""

from pathlib import Path
from typing import TYPE_CHECKING

from unveil_evalharness.gallery import captioned, choose, fitted, to_picture
from unveil_evalharness.task import Picture
from unveil_evalharness.tasks.imagenet_ft.data import ImageFolder, image_name, open_image

if TYPE_CHECKING:
    import polars

__all__ = ["gallery_of"]

_SIDE = 200


def gallery_of(samples: "polars.DataFrame", val: ImageFolder, data_root: Path) -> tuple[Picture, ...]:
    """Pictures of images chosen by their names, the same ones for every checkpoint.

    Args:
        samples: see `unveil_evalharness.tasks.classification.scores.samples_of`.
        val: the images in the order of `samples`.
        data_root: the samples' names are paths under it.
    """
    names = [image_name(image, data_root) for image, _ in val.images]
    pictures = []
    for index in choose(names):
        label, prediction, correct = samples.row(index)[1:4]
        caption = label if correct else f"{label}, taken for {prediction}"
        image = captioned(fitted(open_image(val.images[index][0]), _SIDE), caption)
        pictures.append(to_picture(image, caption, "good" if correct else "bad"))
    return tuple(pictures)
