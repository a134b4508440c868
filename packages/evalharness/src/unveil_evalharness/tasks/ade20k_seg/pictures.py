"""Predicted label maps beside the truth as pictures for the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import UInt8
from PIL import Image

from unveil_evalharness.compat.images import read_rgb
from unveil_evalharness.gallery import class_palette, draw_segmentation, legend, side_by_side, to_picture
from unveil_evalharness.task import Picture
from unveil_evalharness.tasks.ade20k_seg.layout import IGNORED, Pair, read_labels, reduce_zero

__all__ = ["segmentation_pictures"]

_GOOD, _BAD = 0.8, 0.5  # share of labelled pixels that are right
_MOST_NAMES = 10


def segmentation_pictures(
    pairs: Sequence[Pair],
    label_maps: Mapping[str, UInt8[np.ndarray, "h w"]],
    classes: Sequence[str],
    samples: pl.DataFrame,
) -> tuple[Picture, ...]:
    """Truth and prediction side by side with the names of the classes in them.

    Args:
        pairs: images with their label maps.
        label_maps: predicted classes by image path; an image without one gets no picture.
        classes: names of the classes.
        samples: from `metrics.per_image`, for the captions.
    """
    accuracy = dict(zip(samples["image"], samples["accuracy"], strict=True))
    return tuple(
        _picture(pair, label_maps[str(pair.image)], classes, accuracy[pair.name])
        for pair in pairs
        if str(pair.image) in label_maps
    )


def _picture(
    pair: Pair, predicted: UInt8[np.ndarray, "h w"], classes: Sequence[str], accuracy: float | None
) -> Picture:
    palette = class_palette(len(classes))
    pixels, labels = read_rgb(Path(pair.image)), reduce_zero(read_labels(pair))
    panels = side_by_side(
        [draw_segmentation(pixels, one, palette, ignore_index=IGNORED) for one in (labels, predicted)],
        titles=["truth", "prediction"],
    )
    shown = [int(index) for index in np.union1d(labels[labels != IGNORED], predicted)[:_MOST_NAMES]]
    colours = [(int(red), int(green), int(blue)) for red, green, blue in palette[shown]]
    names = legend([classes[index] for index in shown], colours, width=panels.width)
    whole = Image.new("RGB", (panels.width, panels.height + names.height), (255, 255, 255))
    whole.paste(panels, (0, 0))
    whole.paste(names, (0, panels.height))
    if accuracy is None:
        return to_picture(whole, f"{pair.name}: nothing is labelled", "example")
    outcome = "good" if accuracy >= _GOOD else "bad" if accuracy < _BAD else "example"
    return to_picture(whole, f"{pair.name}: {accuracy:.0%} of the labelled pixels are right", outcome)
