"""Matched detections of a whole data set, and the same as one table row per image.

Shape legend: i images, d detections of one category (best score first), t overlap thresholds 0.50 … 0.95.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

__all__ = ["AREAS", "KINDS", "Area", "CategoryMatches", "Kind", "Matches", "matches_from_samples", "per_image"]

Kind = Literal["bbox", "segm"]
KINDS: tuple[Kind, ...] = ("bbox", "segm")
"""Overlap of boxes, or of masks."""
Area = Literal["all", "small", "medium", "large"]
AREAS: tuple[Area, ...] = ("all", "small", "medium", "large")
"""COCO's sizes of objects."""

_NUM_THRESHOLDS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryMatches:
    """All detections of one category, best score first, and the objects to be found."""

    image: Int[np.ndarray, " d"]
    """Position of each detection's image."""
    score: Float[np.ndarray, " d"]
    hit: Bool[np.ndarray, "t d"]
    """Whether the detection found an object at each threshold."""
    counts: Bool[np.ndarray, "t d"]
    """False where the detection is neither right nor wrong: it found a crowd, or is of another size."""
    objects: Int[np.ndarray, " i"]
    """Objects per image, crowds and other sizes left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Matches:
    """Matches of all categories."""

    image_ids: tuple[int, ...]
    file_names: tuple[str, ...]
    categories: tuple[CategoryMatches, ...]
    names: tuple[str, ...]
    """Of the categories."""


def per_image(bbox: Matches, segm: Matches) -> pl.DataFrame:
    """What happened in each image, enough to compute average precision again (`matches_from_samples`).

    Returns:
        Columns ``image`` (file name), ``image_id``, ``num_objects``, ``num_detections``, ``best_score`` (null without
        detection), ``bbox_found`` and ``segm_found`` (objects found at an overlap of 0.5), ``objects`` (list: category
        of each object), and for ``bbox`` and ``segm`` lists with an entry per detection: ``<kind>_category``,
        ``<kind>_score``, and ``<kind>_hit`` and ``<kind>_counted`` with one bit per threshold, 0.50 the lowest.
    """
    size = len(bbox.image_ids)
    detections, best = np.zeros(size, dtype=np.int64), np.full(size, np.nan)
    for category in bbox.categories:
        np.add.at(detections, category.image, 1)
        np.fmax.at(best, category.image, category.score)
    objects = np.stack([category.objects for category in bbox.categories], axis=1)
    numbers = np.arange(objects.shape[1])
    columns = {
        "image": bbox.file_names,
        "image_id": bbox.image_ids,
        "num_objects": objects.sum(axis=1),
        "num_detections": detections,
        "best_score": best,
        "bbox_found": _found(bbox),
        "segm_found": _found(segm),
        "objects": pl.Series([np.repeat(numbers, row).tolist() for row in objects], dtype=pl.List(pl.Int32)),
    }
    for kind, matches in zip(KINDS, (bbox, segm), strict=True):
        columns |= _detections(kind, matches)
    return pl.DataFrame(columns).with_columns(pl.col("best_score").fill_nan(None))


def _found(matches: Matches) -> Int[np.ndarray, " i"]:
    found = np.zeros(len(matches.image_ids), dtype=np.int64)
    for category in matches.categories:
        np.add.at(found, category.image, category.hit[0].astype(np.int64))
    return found


def _detections(kind: Kind, matches: Matches) -> dict[str, pl.Series]:
    parts = list(enumerate(matches.categories))
    image = np.concatenate([one.image for _, one in parts])
    order = np.argsort(image, kind="stable")
    bounds = np.searchsorted(image[order], np.arange(1, len(matches.image_ids)))
    columns: dict[str, tuple[np.ndarray, type[pl.DataType]]] = {
        "category": (np.concatenate([np.full(len(one.image), number) for number, one in parts]), pl.Int32),
        "score": (np.concatenate([one.score for _, one in parts]), pl.Float64),
        "hit": (np.concatenate([_bits(one.hit) for _, one in parts]), pl.Int32),
        "counted": (np.concatenate([_bits(one.counts) for _, one in parts]), pl.Int32),
    }
    return {
        f"{kind}_{name}": pl.Series([part.tolist() for part in np.split(values[order], bounds)], dtype=pl.List(dtype))
        for name, (values, dtype) in columns.items()
    }


def _bits(flags: Bool[np.ndarray, "t d"]) -> Int[np.ndarray, " d"]:
    return (flags.astype(np.int64) << np.arange(len(flags))[:, None]).sum(axis=0)


def matches_from_samples(samples: pl.DataFrame, kind: Kind) -> tuple[CategoryMatches, ...]:
    """The categories of `Matches` from a table of `per_image`; a repeated row is one more image.

    Categories that no object belongs to are left out: they have no average precision.
    """
    rows = samples.with_row_index("row")
    objects = rows.select("row", "objects").explode("objects").drop_nulls()
    names = ("category", "score", "hit", "counted")
    found = rows.select("row", *(f"{kind}_{name}" for name in names)).explode(*(f"{kind}_{name}" for name in names))
    found = found.drop_nulls()
    row, category, score, hit, counted = (found[name].to_numpy() for name in found.columns)
    # Best score first; equal scores keep the order of the images, as in pycocotools.
    order = np.lexsort((row, -score, category))
    row, category, score, hit, counted = (part[order] for part in (row, category, score, hit, counted))
    return tuple(
        CategoryMatches(
            image=row[start:end].astype(np.int64),
            score=score[start:end],
            hit=_flags(hit[start:end]),
            counts=_flags(counted[start:end]),
            objects=_per_row(objects, number, samples.height),
        )
        for number in objects["objects"].unique().sort().to_list()
        for start, end in [np.searchsorted(category, [number, number + 1])]
    )


def _per_row(objects: pl.DataFrame, number: int, height: int) -> Int[np.ndarray, " i"]:
    of_category = objects.filter(pl.col("objects") == number)["row"].to_numpy()
    return np.bincount(of_category.astype(np.int64), minlength=height)


def _flags(bits: Sequence[int] | np.ndarray) -> Bool[np.ndarray, "t d"]:
    return (np.asarray(bits)[None, :] >> np.arange(_NUM_THRESHOLDS)[:, None]) & 1 == 1
