"""Mean intersection over union and pixel accuracy with their sampling errors, from counts per image.

Both metrics are functions of counts summed over images, so the counts of each image (`ImageCounts`) give the value,
the value of every bootstrap resample, and the per-image table. mmseg's `IoUMetric` counts; the values here are not
rounded as its are, and must agree with them.

Shape legend: n images, c classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int, Num

__all__ = ["ImageCounts", "Scores", "majority_counts", "per_image", "scores", "standard_errors"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageCounts:
    """Pixels per image and class, unlabelled pixels left out."""

    intersection: Int[np.ndarray, "n c"]
    """Predicted and labelled so."""
    predicted: Int[np.ndarray, "n c"]
    labelled: Int[np.ndarray, "n c"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The two metrics, as fractions."""

    mean_iou: float
    """Mean over the classes that are labelled or predicted anywhere."""
    accuracy: float
    """Share of labelled pixels that are right."""


def scores(counts: ImageCounts, multiplicity: Num[np.ndarray, " n"] | None = None) -> Scores:
    """Both metrics over all images.

    Args:
        counts: per image.
        multiplicity: how often each image counts; None: once.
    """
    times = np.ones(len(counts.labelled)) if multiplicity is None else multiplicity.astype(np.float64)
    intersection, predicted, labelled = (
        times @ part for part in (counts.intersection, counts.predicted, counts.labelled)
    )
    iou = _ratio(intersection, predicted + labelled - intersection)
    return Scores(
        mean_iou=float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan"),
        accuracy=float(_ratio(intersection.sum(), labelled.sum())),
    )


def standard_errors(counts: ImageCounts, *, num_resamples: int, seed: int) -> Scores | None:
    """Bootstrap standard errors of both metrics over images (Efron): they are drawn anew with replacement.

    Returns:
        Standard deviations of the resampled values; None for fewer than two images or resamples.
    """
    num_images = len(counts.labelled)
    if min(num_images, num_resamples) < 2:
        return None
    draws = np.random.default_rng(seed).multinomial(num_images, np.full(num_images, 1 / num_images), num_resamples)
    resampled = [scores(counts, draw) for draw in draws]
    return Scores(
        mean_iou=float(np.nanstd([one.mean_iou for one in resampled], ddof=1)),
        accuracy=float(np.nanstd([one.accuracy for one in resampled], ddof=1)),
    )


def majority_counts(training: Int[np.ndarray, "images c"], labelled: Int[np.ndarray, "n c"]) -> ImageCounts:
    """What a model would count that predicts the commonest class of the training pixels everywhere.

    Args:
        training: labelled pixels per training image and class.
        labelled: labelled pixels per evaluation image and class.
    """
    commonest = int(training.sum(axis=0).argmax())
    predicted, intersection = np.zeros_like(labelled), np.zeros_like(labelled)
    predicted[:, commonest] = labelled.sum(axis=1)
    intersection[:, commonest] = labelled[:, commonest]
    return ImageCounts(intersection=intersection, predicted=predicted, labelled=labelled)


def per_image(names: Sequence[str], counts: ImageCounts) -> pl.DataFrame:
    """What happened in each image.

    Returns:
        Columns ``image``, ``labelled_pixels``, ``accuracy`` and ``mean_iou`` (over the classes of that image,
        labelled or predicted; null where nothing is labelled).
    """
    iou = _ratio(counts.intersection, counts.predicted + counts.labelled - counts.intersection)
    present = np.isfinite(iou)
    return pl.DataFrame(
        {
            "image": list(names),
            "labelled_pixels": counts.labelled.sum(axis=1),
            "accuracy": _ratio(counts.intersection.sum(axis=1), counts.labelled.sum(axis=1)),
            "mean_iou": _ratio(np.where(present, iou, 0).sum(axis=1), present.sum(axis=1)),
        }
    ).with_columns(pl.col("accuracy", "mean_iou").fill_nan(None))


def _ratio(
    part: Num[np.ndarray, "..."] | np.number, whole: Num[np.ndarray, "..."] | np.number
) -> Float[np.ndarray, "..."]:
    """`part / whole`, not a number where `whole` is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)
