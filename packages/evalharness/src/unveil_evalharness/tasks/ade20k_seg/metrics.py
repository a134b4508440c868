"""Mean intersection over union and accuracies with their sampling errors, from counts per image.

All metrics are functions of counts summed over images, so the counts of each image (`ImageCounts`) give the value,
the value of every bootstrap resample, and the per-image table. mmseg's `IoUMetric` counts; the values here are not
rounded as its are, and must agree with them.

Shape legend: n images, c classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int, Num

__all__ = [
    "ImageCounts",
    "Scores",
    "confusion_table",
    "majority_counts",
    "metric_from_samples",
    "per_class",
    "per_image",
    "scores",
    "standard_errors",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageCounts:
    """Pixels per image and class, unlabelled pixels left out."""

    intersection: Int[np.ndarray, "n c"]
    """Predicted and labelled so."""
    predicted: Int[np.ndarray, "n c"]
    labelled: Int[np.ndarray, "n c"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The three metrics, as fractions."""

    mean_iou: float
    """Mean over the classes that are labelled or predicted anywhere."""
    mean_accuracy: float
    """Mean over the labelled classes of the share of their pixels that are right."""
    accuracy: float
    """Share of labelled pixels that are right."""


def scores(counts: ImageCounts, multiplicity: Num[np.ndarray, " n"] | None = None) -> Scores:
    """All metrics over all images.

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
        mean_iou=_mean(iou),
        mean_accuracy=_mean(_ratio(intersection, labelled)),
        accuracy=float(_ratio(intersection.sum(), labelled.sum())),
    )


def standard_errors(counts: ImageCounts, *, num_resamples: int, seed: int) -> Scores | None:
    """Bootstrap standard errors of all metrics over images (Efron): they are drawn anew with replacement.

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
        mean_accuracy=float(np.nanstd([one.mean_accuracy for one in resampled], ddof=1)),
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


def per_image(names: Sequence[str], counts: ImageCounts, views: ImageCounts) -> pl.DataFrame:
    """What happened in each image, enough to compute the metrics again (`metric_from_samples`).

    Args:
        names: file names.
        counts: of the single-scale test.
        views: of the multi-scale test.

    Returns:
        Columns ``image``, ``labelled_pixels``, ``accuracy`` and ``mean_iou`` (over the classes of that image, labelled
        or predicted; null where nothing is labelled), and lists with an entry per class: ``labelled``,
        ``intersection``, ``predicted``, ``intersection_ms``, ``predicted_ms``.
    """
    iou = _ratio(counts.intersection, counts.predicted + counts.labelled - counts.intersection)
    present = np.isfinite(iou)
    return pl.DataFrame(
        {
            "image": list(names),
            "labelled_pixels": counts.labelled.sum(axis=1),
            "accuracy": _ratio(counts.intersection.sum(axis=1), counts.labelled.sum(axis=1)),
            "mean_iou": _ratio(np.where(present, iou, 0).sum(axis=1), present.sum(axis=1)),
            "labelled": counts.labelled.tolist(),
            "intersection": counts.intersection.tolist(),
            "predicted": counts.predicted.tolist(),
            "intersection_ms": views.intersection.tolist(),
            "predicted_ms": views.predicted.tolist(),
        }
    ).with_columns(pl.col("accuracy", "mean_iou").fill_nan(None))


def metric_from_samples(samples: pl.DataFrame) -> dict[str, float]:
    """All metrics from the table of `per_image`; repeated rows count as often.

    Returns:
        ``mIoU``, ``mAcc``, ``aAcc`` of the single-scale test, and the same with ``_ms`` of the multi-scale test.
    """
    labelled = _per_class(samples["labelled"])
    result: dict[str, float] = {}
    for suffix in ("", "_ms"):
        intersection, predicted = (_per_class(samples[f"{part}{suffix}"]) for part in ("intersection", "predicted"))
        value = scores(ImageCounts(intersection=intersection, predicted=predicted, labelled=labelled))
        result |= {
            f"mIoU{suffix}": value.mean_iou,
            f"mAcc{suffix}": value.mean_accuracy,
            f"aAcc{suffix}": value.accuracy,
        }
    return result


def _per_class(column: pl.Series) -> Int[np.ndarray, "n c"]:
    """A column of equally long lists as a matrix; through Python's lists a resample would take a second."""
    return column.explode().to_numpy().astype(np.int64).reshape(len(column), -1)


def per_class(names: Sequence[str], counts: ImageCounts) -> pl.DataFrame:
    """Each class over all images.

    Returns:
        Columns ``class``, ``IoU`` (null where neither labelled nor predicted), ``accuracy`` (null where not labelled),
        ``labelled_pixels``, ``predicted_pixels`` and ``num_images`` with such a label.
    """
    intersection, predicted, labelled = (
        part.sum(axis=0) for part in (counts.intersection, counts.predicted, counts.labelled)
    )
    return pl.DataFrame(
        {
            "class": list(names),
            "IoU": _ratio(intersection, predicted + labelled - intersection),
            "accuracy": _ratio(intersection, labelled),
            "labelled_pixels": labelled,
            "predicted_pixels": predicted,
            "num_images": (counts.labelled > 0).sum(axis=0),
        }
    ).with_columns(pl.col("IoU", "accuracy").fill_nan(None))


def confusion_table(names: Sequence[str], pixels: Int[np.ndarray, "c c"]) -> pl.DataFrame:
    """The occupied cells of a confusion matrix, most pixels first.

    Args:
        names: of the classes.
        pixels: by label (rows) and prediction (columns).

    Returns:
        Columns ``label``, ``prediction``, ``pixels`` and ``share`` of the label's pixels.
    """
    labels, predictions = np.nonzero(pixels)
    values = pixels[labels, predictions]
    return pl.DataFrame(
        {
            "label": [names[int(index)] for index in labels],
            "prediction": [names[int(index)] for index in predictions],
            "pixels": values,
            "share": values / pixels.sum(axis=1)[labels],
        }
    ).sort("pixels", descending=True, maintain_order=True)


def _mean(values: Float[np.ndarray, " c"]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _ratio(
    part: Num[np.ndarray, "..."] | np.number, whole: Num[np.ndarray, "..."] | np.number
) -> Float[np.ndarray, "..."]:
    """`part / whole`, not a number where `whole` is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)
