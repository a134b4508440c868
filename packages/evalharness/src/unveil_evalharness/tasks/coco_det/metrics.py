"""COCO average precision with its sampling error, from the matches that pycocotools computes.

pycocotools matches detections to objects per image and category (`read_matches`); average precision is then a
function of those matches and of how often each image counts (`average_precision`). With every image once it equals
``COCOeval.accumulate``; with bootstrap multiplicities (Efron) it gives resampled values, hence a standard error.

Shape legend: i images, d detections of one category (best score first), t overlap thresholds 0.50 … 0.95.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

__all__ = ["CategoryMatches", "Kind", "Matches", "average_precision", "per_image", "read_matches", "standard_error"]

Kind = Literal["bbox", "segm"]

_RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's interpolation points
_MAX_DETECTIONS = 100  # per image and category, COCO's rule


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryMatches:
    """All detections of one category, best score first, and the objects to be found."""

    image: Int[np.ndarray, " d"]
    """Position of each detection's image."""
    score: Float[np.ndarray, " d"]
    hit: Bool[np.ndarray, "t d"]
    """Whether the detection found an object at each threshold."""
    counts: Bool[np.ndarray, "t d"]
    """False where the detection is neither right nor wrong: it found a crowd."""
    objects: Int[np.ndarray, " i"]
    """Objects per image, crowds left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Matches:
    """Matches of all categories."""

    image_ids: tuple[int, ...]
    file_names: tuple[str, ...]
    categories: tuple[CategoryMatches, ...]


def read_matches(annotation_file: Path, predictions: Path, kind: Kind) -> Matches:
    """Matches predictions in COCO's result format against annotations.

    Args:
        annotation_file: COCO instances.
        predictions: JSON list as ``CocoMetric`` writes it; may be empty.
        kind: match by box or by mask overlap.
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
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [_MAX_DETECTIONS]
    evaluation.evaluate()
    ids = [int(identity) for identity in evaluation.params.imgIds]
    per_category = [
        evaluation.evalImgs[start : start + len(ids)] for start in range(0, len(evaluation.evalImgs), len(ids))
    ]
    num_thresholds = len(evaluation.params.iouThrs)
    return Matches(
        image_ids=tuple(ids),
        file_names=tuple(truth.imgs[identity]["file_name"] for identity in ids),
        categories=tuple(_category(row, num_thresholds) for row in per_category),
    )


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


def average_precision(matches: Matches, multiplicity: Int[np.ndarray, " i"]) -> float:
    """COCO's mean average precision with each image counted so often.

    Mean over categories that have an object, over thresholds and over 101 recall levels of the best precision at
    that recall or a higher one. Not a number where no category has an object.
    """
    values = [
        _category_precision(category, multiplicity)
        for category in matches.categories
        if multiplicity @ category.objects > 0
    ]
    return float(np.mean(values)) if values else float("nan")


def _category_precision(category: CategoryMatches, multiplicity: Int[np.ndarray, " i"]) -> float:
    times = multiplicity[category.image]
    right = np.cumsum(category.hit * times, axis=1)
    counted = np.cumsum(category.counts * times, axis=1)
    recall = right / (multiplicity @ category.objects)
    precision = right / np.maximum(counted, 1)
    # The best precision at this recall or beyond.
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for row, best in zip(recall, envelope, strict=True):
        reached = np.searchsorted(row, _RECALLS, side="left")
        total += best[reached[reached < len(row)]].sum()
    return total / (len(_RECALLS) * len(recall))


def standard_error(matches: Matches, *, num_resamples: int, seed: int) -> float | None:
    """Bootstrap standard error of `average_precision` over images.

    Args:
        matches: see `read_matches`.
        num_resamples: how often the images are drawn anew, with replacement.
        seed: of the draws.

    Returns:
        The standard deviation of the resampled values; None for fewer than two images or resamples.
    """
    num_images = len(matches.image_ids)
    if min(num_images, num_resamples) < 2:
        return None
    draws = np.random.default_rng(seed).multinomial(num_images, np.full(num_images, 1 / num_images), num_resamples)
    values = np.array([average_precision(matches, draw) for draw in draws])
    return float(np.nanstd(values, ddof=1))


def per_image(bbox: Matches, segm: Matches) -> pl.DataFrame:
    """What happened in each image.

    Returns:
        Columns ``image_id``, ``file_name``, ``num_objects``, ``num_detections``, ``best_score`` (null without
        detection), ``bbox_found`` and ``segm_found``: objects found at an overlap of 0.5.
    """
    size = len(bbox.image_ids)
    detections, best = np.zeros(size, dtype=np.int64), np.full(size, np.nan)
    for category in bbox.categories:
        np.add.at(detections, category.image, 1)
        np.fmax.at(best, category.image, category.score)
    return pl.DataFrame(
        {
            "image_id": bbox.image_ids,
            "file_name": bbox.file_names,
            "num_objects": np.sum([category.objects for category in bbox.categories], axis=0),
            "num_detections": detections,
            "best_score": best,
            "bbox_found": _found(bbox),
            "segm_found": _found(segm),
        }
    ).with_columns(pl.col("best_score").fill_nan(None))


def _found(matches: Matches) -> Int[np.ndarray, " i"]:
    found = np.zeros(len(matches.image_ids), dtype=np.int64)
    for category in matches.categories:
        np.add.at(found, category.image, category.hit[0].astype(np.int64))
    return found
