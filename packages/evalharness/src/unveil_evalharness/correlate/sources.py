"""Runs of another data source sit at another loss for the same score: by how much?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unveil_evalharness.correlate.columns import Columns
from unveil_evalharness.correlate.join import Point
from unveil_evalharness.correlate.statistics import MIN_POINTS
from unveil_evalharness.statistics.offset import Matched, Offset, matched_offset, source_offset
from unveil_evalharness.statistics.resampling import draw_counts

__all__ = ["SourceOffset", "offsets_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOffset:
    """One source against the one with most points."""

    source: str
    reference: str
    n: int
    """Points of both; those of pairs that over-fit are left out, their loss is offset for another reason."""
    offset: Offset
    """Loss of the source minus that of the reference at equal value."""
    matched: Matched | None
    """Mean differences at equal model and length, with the most images of the reference."""


def offsets_of(
    columns: Columns, points: Sequence[Point], *, num_resamples: int, seed: int, confidence: float
) -> tuple[SourceOffset, ...]:
    """Empty when all points have one source, or none is known."""
    sources = [point.source for point in points]
    if not all(sources) or len(set(sources)) < 2:
        return ()
    reference = Counter(sources).most_common(1)[0][0]
    found: list[SourceOffset] = []
    for source in sorted(set(sources) - {reference}):
        inside = np.array(
            [
                one in (source, reference) and not point.setting_overfits
                for one, point in zip(sources, points, strict=True)
            ]
        )
        flag = np.array([float(one == source) for one in sources])
        if min(flag[inside].sum(), (1 - flag[inside]).sum()) < 2 or inside.sum() < MIN_POINTS:
            continue
        if np.ptp(columns.y[inside]) == 0:
            continue
        counts = draw_counts(np.random.default_rng(seed), num_resamples, int(inside.sum()))
        offset = source_offset(columns.loss[inside], columns.value[inside], flag[inside], counts, confidence=confidence)
        matched = _matched(columns, points, flag, inside)
        found.append(
            SourceOffset(source=source, reference=reference, n=int(inside.sum()), offset=offset, matched=matched)
        )
    return tuple(found)


def _matched(columns: Columns, points: Sequence[Point], flag: np.ndarray, inside: np.ndarray) -> Matched | None:
    """At equal model and length; of the reference only its largest data set, which is no subset."""
    if not all(point.step > 0 for point in points):
        return None
    largest = max((p.unique_samples for p, f in zip(points, flag, strict=True) if not f), default=0)
    kept = inside & np.array(
        [bool(f) or point.unique_samples == largest for point, f in zip(points, flag, strict=True)]
    )
    settings = np.unique([f"{point.model} {point.step}" for point in points], return_inverse=True)[1]
    return matched_offset(columns.loss[kept], columns.value[kept], flag[kept], settings[kept])
