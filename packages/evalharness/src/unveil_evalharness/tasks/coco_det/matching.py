"""Matches detections to objects with pycocotools, for each of COCO's object sizes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from unveil_evalharness.tasks.coco_det.matches import AREAS, Area, CategoryMatches, Kind, Matches

__all__ = ["read_matches"]

_MAX_DETECTIONS = 100  # per image and category, COCO's rule
_RANGES: Mapping[Area, tuple[float, float]] = {
    "all": (0, 1e10),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, 1e10),
}


def read_matches(annotation_file: Path, predictions: Path, kind: Kind) -> dict[Area, Matches]:
    """Matches predictions in COCO's result format against annotations.

    Args:
        annotation_file: COCO instances.
        predictions: JSON list as ``CocoMetric`` writes it; may be empty.
        kind: match by box or by mask overlap.

    Returns:
        Matches of all objects, and of objects below 32², from there to 96², and above 96² pixels of area.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(annotation_file))
    rows = json.loads(predictions.read_bytes())
    if kind == "segm":
        # With a box present pycocotools would take its area for the mask's.
        rows = [{key: value for key, value in row.items() if key != "bbox"} for row in rows]
    # pycocotools takes a list as well as a file name.
    results = truth.loadRes(cast(Any, rows)) if rows else _no_results(truth)
    evaluation = COCOeval(truth, results, kind)
    evaluation.params.areaRng = [list(_RANGES[area]) for area in AREAS]
    evaluation.params.areaRngLbl = list(AREAS)
    evaluation.params.maxDets = [_MAX_DETECTIONS]
    evaluation.evaluate()
    ids = [int(identity) for identity in evaluation.params.imgIds]
    # Ordered by category, then size, then image.
    blocks = [evaluation.evalImgs[start : start + len(ids)] for start in range(0, len(evaluation.evalImgs), len(ids))]
    num_thresholds = len(evaluation.params.iouThrs)
    names = tuple(str(truth.cats[identity]["name"]) for identity in evaluation.params.catIds)
    return {
        area: Matches(
            image_ids=tuple(ids),
            file_names=tuple(truth.imgs[identity]["file_name"] for identity in ids),
            categories=tuple(_category(block, num_thresholds) for block in blocks[position :: len(AREAS)]),
            names=names,
        )
        for position, area in enumerate(AREAS)
    }


def _no_results(truth: Any) -> Any:
    """``COCO.loadRes`` fails on an empty list."""
    from pycocotools.coco import COCO

    empty = COCO()
    empty.dataset = {"images": truth.dataset["images"], "categories": truth.dataset["categories"], "annotations": []}
    empty.createIndex()
    return empty


def _category(images: Sequence[Any], num_thresholds: int) -> CategoryMatches:
    found = [(position, image) for position, image in enumerate(images) if image is not None]
    objects = np.zeros(len(images), dtype=np.int64)
    for position, image in found:
        objects[position] = np.sum(np.asarray(image["gtIgnore"]) == 0)
    none = np.zeros((num_thresholds, 0))
    score = np.concatenate([np.empty(0), *(image["dtScores"] for _, image in found)])
    # Stable, like pycocotools: equal scores keep the order of the images.
    order = np.argsort(-score, kind="stable")
    position = np.concatenate([np.empty(0, int), *(np.full(len(image["dtScores"]), at) for at, image in found)])
    hit = np.concatenate([none, *(image["dtMatches"] for _, image in found)], axis=1) > 0
    ignored = np.concatenate([none, *(image["dtIgnore"] for _, image in found)], axis=1) > 0
    return CategoryMatches(
        image=position[order],
        score=score[order],
        hit=(hit & ~ignored)[:, order],
        counts=~ignored[:, order],
        objects=objects,
    )
