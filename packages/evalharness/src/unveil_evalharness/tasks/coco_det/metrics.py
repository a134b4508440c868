"""COCO average precision with its sampling error, as pure functions of matched detections.

`matching.read_matches` matches detections to objects per image and category; average precision is then a function of
those matches and of how often each image counts. With every image once it equals ``COCOeval.accumulate``; with
bootstrap multiplicities (Efron) it gives resampled values, hence a standard error.

Shape legend: i images, d detections of one category (best score first), t overlap thresholds 0.50 … 0.95, c categories.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import polars.selectors as cs
from jaxtyping import Float, Int

from unveil_evalharness.tasks.coco_det.matches import KINDS, Area, CategoryMatches, Kind, Matches, matches_from_samples

__all__ = ["AVERAGES", "averages", "metric_from_samples", "per_class", "precisions", "standard_errors"]

AVERAGES: Mapping[str, tuple[Area, int | None]] = {
    "mAP": ("all", None),
    "mAP_50": ("all", 0),
    "mAP_75": ("all", 5),
    "mAP_s": ("small", None),
    "mAP_m": ("medium", None),
    "mAP_l": ("large", None),
}
"""COCO's averages as mmdet names them: sizes of objects, and the position of one threshold or None for their mean."""

_RECALLS = np.linspace(0.0, 1.0, 101)  # COCO's interpolation points


def precisions(
    categories: Sequence[CategoryMatches], multiplicity: Int[np.ndarray, " i"] | None = None
) -> Float[np.ndarray, "c t"]:
    """Average precision of each category at each threshold; not a number where a category has no object.

    The mean over 101 recall levels of the best precision at that recall or a higher one.

    Args:
        categories: matched detections.
        multiplicity: how often each image counts; None: once.
    """
    return np.stack([_category_precisions(category, multiplicity) for category in categories])


def _category_precisions(
    category: CategoryMatches, multiplicity: Int[np.ndarray, " i"] | None
) -> Float[np.ndarray, " t"]:
    once = np.ones(len(category.objects), dtype=np.int64) if multiplicity is None else multiplicity
    objects = once @ category.objects
    if objects == 0:
        return np.full(len(category.hit), np.nan)
    times = once[category.image]
    right = np.cumsum(category.hit * times, axis=1)
    counted = np.cumsum(category.counts * times, axis=1)
    recall = right / objects
    precision = right / np.maximum(counted, 1)
    # The best precision at this recall or beyond.
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    result = np.zeros(len(recall))
    for threshold, (row, best) in enumerate(zip(recall, envelope, strict=True)):
        reached = np.searchsorted(row, _RECALLS, side="left")
        result[threshold] = best[reached[reached < len(row)]].sum() / len(_RECALLS)
    return result


def averages(found: Mapping[Area, Matches], multiplicity: Int[np.ndarray, " i"] | None = None) -> dict[str, float]:
    """`AVERAGES` over the categories that have objects; not a number where none has one of that size.

    Args:
        found: matches by size, from `matching.read_matches`.
        multiplicity: how often each image counts; None: once.
    """
    by_area = {area: precisions(matches.categories, multiplicity) for area, matches in found.items()}
    return {name: _mean(by_area[area], position) for name, (area, position) in AVERAGES.items()}


def _mean(values: Float[np.ndarray, "c t"], position: int | None) -> float:
    chosen = values if position is None else values[:, position]
    return float(np.nanmean(chosen)) if np.isfinite(chosen).any() else float("nan")


def standard_errors(found: Mapping[Area, Matches], *, num_resamples: int, seed: int) -> dict[str, float | None]:
    """Bootstrap standard errors of `averages` over images.

    Args:
        found: matches by size.
        num_resamples: how often the images are drawn anew, with replacement.
        seed: of the draws.

    Returns:
        Standard deviations of the resampled values; None for fewer than two images or defined values.
    """
    num_images = len(found["all"].image_ids)
    if min(num_images, num_resamples) < 2:
        return dict.fromkeys(AVERAGES)
    draws = np.random.default_rng(seed).multinomial(num_images, np.full(num_images, 1 / num_images), num_resamples)
    resampled = [averages(found, draw) for draw in draws]
    return {name: _deviation([one[name] for one in resampled]) for name in AVERAGES}


def _deviation(values: Sequence[float]) -> float | None:
    defined = np.array([value for value in values if np.isfinite(value)])
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else None


def metric_from_samples(samples: pl.DataFrame) -> dict[str, float]:
    """Average precision over all sizes from the table of `matches.per_image`; repeated rows count as often.

    Returns:
        ``bbox_mAP``, ``bbox_mAP_50``, ``bbox_mAP_75`` and the same of ``segm``; not a number without any object.
    """
    result: dict[str, float] = {}
    for kind in KINDS:
        categories = matches_from_samples(samples, kind)
        values = precisions(categories) if categories else np.full((1, 10), np.nan)
        for name in ("mAP", "mAP_50", "mAP_75"):
            result[f"{kind}_{name}"] = _mean(values, AVERAGES[name][1])
    return result


def per_class(found: Mapping[Kind, Matches]) -> pl.DataFrame:
    """Average precision of each category over all sizes.

    Returns:
        Columns ``class``, ``bbox_AP``, ``bbox_AP_50``, ``segm_AP``, ``segm_AP_50`` (null where the category has no
        object), ``num_objects`` and ``num_images`` with such an object.
    """
    boxes = found["bbox"]
    columns: dict[str, object] = {"class": boxes.names}
    for kind, matches in found.items():
        values = precisions(matches.categories)
        columns[f"{kind}_AP"] = values.mean(axis=1)
        columns[f"{kind}_AP_50"] = values[:, 0]
    columns["num_objects"] = [int(one.objects.sum()) for one in boxes.categories]
    columns["num_images"] = [int((one.objects > 0).sum()) for one in boxes.categories]
    return pl.DataFrame(columns).with_columns(cs.float().fill_nan(None))
