"""What one coefficient cannot say: by group, given size and length, as a choice, as a forecast, side by side.

Each part is there when the points carry what it needs, and None (or empty) when they do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unveil_evalharness.correlate.choices import Choices, choices_of
from unveil_evalharness.correlate.columns import Columns, columns_of
from unveil_evalharness.correlate.conditioned import Explained, Partial, Within, explained_of, partial_of, within_of
from unveil_evalharness.correlate.forecasts import ForecastSummary, forecasts_of
from unveil_evalharness.correlate.join import Column, Point
from unveil_evalharness.correlate.noise import NoiseSummary, noise_of
from unveil_evalharness.correlate.parts import Part, parts_of
from unveil_evalharness.correlate.sources import SourceOffset, offsets_of
from unveil_evalharness.statistics.steps import Steps, steps

__all__ = ["MAX_POINTS", "Study", "study_of"]

MAX_POINTS = 2_000
"""Beyond this many points the pairwise parts are left out: their tables would hold millions of pairs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """The parts."""

    parts: tuple[Part, ...]
    """Each group by itself: per model, data, source, over-fitted or not, and whatever was asked for."""
    within: Within | None
    """With the means of the models taken away."""
    partial: Partial | None
    """With size and length (or what was asked for) regressed out."""
    explained: Explained | None
    """R² of the controls, of x, and of both."""
    choices: Choices | None
    """Pairs in the right order, and what choosing by x loses."""
    steps: Steps | None
    """From each run to the next longer one: falling and rising losses apart."""
    forecasts: tuple[ForecastSummary, ...]
    """Of models that were left out."""
    offsets: tuple[SourceOffset, ...]
    """Between data sources."""
    noise: NoiseSummary | None
    """Of seeds, where there are several."""


def study_of(column: Column, points: Sequence[Point], *, num_resamples: int, seed: int, confidence: float) -> Study:
    """Looks at one stratum from all sides.

    Args:
        column: the metric.
        points: at least `MIN_POINTS`, neither losses nor values constant.
        num_resamples: bootstrap resamples behind each interval.
        seed: of the resampling.
        confidence: level of the intervals.
    """
    columns = columns_of(column, points)
    small = len(points) <= MAX_POINTS
    options = {"num_resamples": num_resamples, "seed": seed, "confidence": confidence}
    return Study(
        parts=parts_of(column, points, **options),
        within=within_of(columns, **options),
        partial=partial_of(columns, **options) if small else None,
        explained=explained_of(columns),
        choices=choices_of(columns, points, **options) if small else None,
        steps=_steps(columns, confidence),
        forecasts=forecasts_of(columns, confidence=confidence) if small else (),
        offsets=offsets_of(columns, points, **options) if small else (),
        noise=noise_of(points, columns, confidence=confidence),
    )


def _steps(columns: Columns, confidence: float) -> Steps | None:
    if columns.setting is None or columns.length is None:
        return None
    found = steps(columns.x, columns.y, columns.setting, columns.length, confidence=confidence)
    return found if found.steps and np.isfinite(columns.x).all() else None
