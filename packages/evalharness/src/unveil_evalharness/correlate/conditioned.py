"""The association once model, size and length are known: what the loss adds to them."""

from dataclasses import dataclass

import numpy as np

from unveil_evalharness.correlate.columns import Columns
from unveil_evalharness.correlate.statistics import LARGE, MIN_POINTS, Statistics, refusal, summarise
from unveil_evalharness.statistics.intervals import Interval, percentile_interval
from unveil_evalharness.statistics.least_squares import demeaned, partial_correlation, partial_of_counts, r_squared
from unveil_evalharness.statistics.resampling import draw_counts, draw_group_counts

__all__ = ["Explained", "Partial", "Within", "explained_of", "partial_of", "within_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Within:
    """Losses and values minus the means of their model: does the loss rank runs of one model?"""

    num_models: int
    statistics: Statistics


@dataclass(frozen=True, kw_only=True, slots=True)
class Partial:
    """Correlation of what the controls leave of loss and value."""

    controls: tuple[str, ...]
    pearson: float
    pearson_interval: Interval | None
    """Bootstrap of clusters where there are some, else of points."""
    spearman: float | None
    """None where the controls leave nothing of the ranks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """Share of the variance of the values that least squares explain."""

    controls: tuple[str, ...]
    by_x: float
    by_controls: float
    by_both: float

    @property
    def gain(self) -> float:
        """What x adds to the controls."""
        return self.by_both - self.by_controls


def within_of(columns: Columns, *, num_resamples: int, seed: int, confidence: float) -> Within | None:
    """None without at least two models, or when nothing is left within them."""
    if columns.model is None:
        return None
    x, y = demeaned(columns.loss, columns.model), demeaned(columns.value, columns.model)
    # Subtracting means leaves rounding where nothing varied: compare with what was there before.
    if np.ptp(x) < 1e-9 * np.ptp(columns.x) or np.ptp(y) < 1e-9 * np.ptp(columns.y) or refusal(x, y) is not None:
        return None
    found = summarise(x, y, num_resamples=num_resamples, seed=seed, confidence=confidence, groups=columns.model)
    return Within(num_models=int(columns.model.max()) + 1, statistics=found)


def partial_of(columns: Columns, *, num_resamples: int, seed: int, confidence: float) -> Partial | None:
    """None without controls, or with too few points for them."""
    if columns.controls is None or len(columns.x) < columns.controls.shape[1] + MIN_POINTS:
        return None
    value = partial_correlation(columns.loss, columns.value, columns.controls)
    if not np.isfinite(value):
        return None
    of_ranks = partial_correlation(columns.loss, columns.value, columns.controls, of_ranks=True)
    interval = None
    if len(columns.x) <= LARGE:
        generator = np.random.default_rng(seed)
        counts = (
            draw_counts(generator, num_resamples, len(columns.x))
            if columns.cluster is None
            else draw_group_counts(generator, num_resamples, columns.cluster)
        )
        resampled = partial_of_counts(columns.loss, columns.value, columns.controls, counts)
        interval = percentile_interval(resampled, confidence)
    return Partial(
        controls=columns.control_names,
        pearson=value,
        pearson_interval=interval,
        spearman=of_ranks if np.isfinite(of_ranks) else None,
    )


def explained_of(columns: Columns) -> Explained | None:
    """None without controls, or with too few points for them."""
    if columns.controls is None or len(columns.x) < columns.controls.shape[1] + MIN_POINTS:
        return None
    alone = columns.x[:, None]
    return Explained(
        controls=columns.control_names,
        by_x=r_squared(columns.y, alone),
        by_controls=r_squared(columns.y, columns.controls),
        by_both=r_squared(columns.y, np.column_stack([alone, columns.controls])),
    )
