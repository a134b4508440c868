"""Seeds, where a study has several: what differences mean nothing, and what noise hides of the correlation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unveil_evalharness.correlate.columns import Columns
from unveil_evalharness.correlate.join import Point
from unveil_evalharness.statistics.attenuation import (
    Noise,
    disattenuated,
    noise_floor,
    reliability,
    replicate_noise,
)
from unveil_evalharness.statistics.coefficients import pearson

__all__ = ["NoiseSummary", "noise_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseSummary:
    """Spread over seeds and what follows from it."""

    kind: str
    """``training``: runs repeated with other seeds; ``evaluation``: the task repeated on one checkpoint."""
    value: Noise
    value_floor: float
    """Two values nearer than this may differ by their seeds alone."""
    loss: Noise | None
    """Of the loss, where training was repeated."""
    reliability_value: float
    reliability_loss: float
    corrected_pearson: float | None
    """Spearman's correction; None where a column is all noise."""


def noise_of(points: Sequence[Point], columns: Columns, *, confidence: float) -> NoiseSummary | None:
    """None where nothing was repeated. Repeated training is preferred: it holds the noise of both columns."""
    repeats = np.unique([f"{p.model} × {p.data} × {p.source} × {p.step}" for p in points], return_inverse=True)[1]
    named = all(point.model and point.data and point.step for point in points)
    value = replicate_noise(columns.y, repeats) if named else None
    if value is not None:
        loss = replicate_noise(columns.x, repeats)
        assert loss is not None
        return _summary("training", value, loss, value.standard_deviation**2, columns, confidence)
    pairs = [
        (point.value_seed_deviation, point.num_seeds) for point in points if point.value_seed_deviation is not None
    ]
    if not pairs:
        return None
    variance = float(np.average([sd**2 for sd, _ in pairs], weights=[n - 1 for _, n in pairs]))
    value = Noise(standard_deviation=variance**0.5, degrees=sum(n - 1 for _, n in pairs))
    of_means = float(np.mean([variance / point.num_seeds for point in points]))  # the values are means over seeds
    return _summary("evaluation", value, None, of_means, columns, confidence)


def _summary(
    kind: str, value: Noise, loss: Noise | None, variance: float, columns: Columns, confidence: float
) -> NoiseSummary:
    of_value = reliability(columns.y, variance)
    of_loss = 1.0 if loss is None else reliability(columns.x, loss.standard_deviation**2)
    return NoiseSummary(
        kind=kind,
        value=value,
        value_floor=noise_floor(value.standard_deviation, confidence),
        loss=loss,
        reliability_value=of_value,
        reliability_loss=of_loss,
        corrected_pearson=disattenuated(pearson(columns.loss, columns.value), of_loss, of_value),
    )
