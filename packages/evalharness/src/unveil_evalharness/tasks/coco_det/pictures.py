"""Detections beside the truth as pictures for the report."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool
from PIL import Image

from unveil_evalharness.compat.images import read_rgb
from unveil_evalharness.gallery import choose, draw_masks, side_by_side, to_picture
from unveil_evalharness.gallery.colours import PALETTE, Colour
from unveil_evalharness.task import Picture

__all__ = ["detection_pictures"]

_LEAST_SCORE = 0.3
_MOST_DETECTIONS = 15
_BEST = 5  # shown where no score is that high: a short training ranks well with scores that are low


def detection_pictures(
    annotation_file: Path, predictions: Path, image_dir: Path, samples: pl.DataFrame, *, number: int = 12
) -> tuple[Picture, ...]:
    """Truth and detections side by side, masks with their boxes, for images chosen without regard to the outcome.

    Args:
        annotation_file: COCO instances.
        predictions: mask results as ``CocoMetric`` writes them.
        image_dir: where the images are.
        samples: from `matches.per_image`, for the captions.
        number: how many pictures at most.
    """
    from pycocotools.coco import COCO

    truth = COCO(str(annotation_file))
    rows = [samples.row(position, named=True) for position in choose(samples["image"].to_list(), number=number)]
    wanted = {row["image_id"] for row in rows}
    by_image: Mapping[int, list[dict[str, Any]]] = defaultdict(list)
    for one in json.loads(predictions.read_bytes()):
        if one["image_id"] in wanted:
            by_image[one["image_id"]].append(one)
    return tuple(_picture(truth, by_image[row["image_id"]], image_dir, row) for row in rows)


def _picture(truth: Any, detections: list[dict[str, Any]], image_dir: Path, row: dict[str, Any]) -> Picture:
    pixels = read_rgb(image_dir / row["image"])
    objects = [one for one in truth.imgToAnns[row["image_id"]] if not one["iscrowd"]]
    shown, title = _shown(detections)
    panels = side_by_side(
        [_panel(truth, pixels, objects, scores=()), _panel(truth, pixels, shown, [one["score"] for one in shown])],
        titles=["truth", title],
    )
    found, total = row["segm_found"], row["num_objects"]
    caption = f"{row['image']}: {found} of {total} objects found at mask overlap 0.5, {len(shown)} detections shown"
    outcome = "example" if total == 0 or 0 < found < total else "good" if found else "bad"
    return to_picture(panels, caption, outcome)


def _shown(detections: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Which detections to show, and the title over them."""
    ordered = sorted(detections, key=lambda one: -one["score"])
    above = [one for one in ordered if one["score"] >= _LEAST_SCORE]
    if above:
        return above[:_MOST_DETECTIONS], f"detections of score {_LEAST_SCORE} or more"
    return ordered[:_BEST], f"none of score {_LEAST_SCORE}; the best {len(ordered[:_BEST])}"


def _panel(truth: Any, pixels: np.ndarray, instances: Sequence[dict[str, Any]], scores: Sequence[float]) -> Image.Image:
    height, width = pixels.shape[:2]
    masks = [_mask(truth, one) for one in instances]
    return draw_masks(
        pixels,
        np.stack(masks) if masks else np.zeros((0, height, width), dtype=bool),
        [truth.cats[one["category_id"]]["name"] for one in instances],
        scores=scores,
        colours=[_colour(one["category_id"]) for one in instances],
    )


def _mask(truth: Any, instance: dict[str, Any]) -> Bool[np.ndarray, "h w"]:
    """Of an annotation (polygons or run lengths) or of a result (compressed run lengths)."""
    return truth.annToMask(instance).astype(bool)


def _colour(category: int) -> Colour:
    return PALETTE[category % len(PALETTE)]
