"""Each group of points by itself: per model, data, source, over-fitted or not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unveil_evalharness.correlate.join import Column, Point
from unveil_evalharness.correlate.statistics import Estimate, Refusal, estimates, refusal

__all__ = ["Part", "parts_of"]

MAX_GROUPS = 40
"""A kind of group with more members than this names every point rather than groups them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Some of the points by themselves."""

    kind: str
    """What they share: model, data, source, fitting."""
    name: str
    n: int
    pearson: Estimate | None
    spearman: Estimate | None
    kendall: Estimate | None
    refusal: Refusal | None


def parts_of(
    column: Column, points: Sequence[Point], *, num_resamples: int, seed: int, confidence: float
) -> tuple[Part, ...]:
    """Every group of every kind that splits the points, with its own coefficients or its refusal."""
    kinds: dict[str, dict[str, list[Point]]] = {}
    for point in points:
        for kind, name in _groups(point):
            kinds.setdefault(kind, {}).setdefault(name, []).append(point)
    found: list[Part] = []
    looked_at: list[list[list[Point]]] = []
    for kind, groups in kinds.items():
        if list(groups.values()) in looked_at:
            continue  # the same groups under another name
        looked_at.append(list(groups.values()))
        if len(groups) > MAX_GROUPS or (len(groups) < 2 and kind != "fitting"):
            continue
        found += [
            _part(kind, name, members, num_resamples=num_resamples, seed=seed, confidence=confidence)
            for name, members in groups.items()
            if len(members) < len(points)
        ]
    return tuple(found)


def _groups(point: Point) -> list[tuple[str, str]]:
    groups = [("model", point.model), ("data", point.data), ("source", point.source), *point.strata.items()]
    if point.overfitted is not None:
        groups.append(("fitting", "over-fitted runs" if point.overfitted else "runs not over-fitted"))
        groups.append(("fitting", "pairs that over-fit" if point.setting_overfits else "pairs that never over-fit"))
    return [(kind, name) for kind, name in groups if name]


def _part(kind: str, name: str, points: Sequence[Point], *, num_resamples: int, seed: int, confidence: float) -> Part:
    x, y = np.array([point.loss for point in points]), np.array([point.value for point in points])
    refused = refusal(x, y)
    clusters = np.unique([point.cluster for point in points], return_inverse=True)[1]
    options = {"num_resamples": num_resamples, "seed": seed, "confidence": confidence}
    found = {} if refused is not None else estimates(x, y, groups=clusters, **options)
    return Part(
        kind=kind,
        name=name,
        n=len(points),
        pearson=found.get("pearson"),
        spearman=found.get("spearman"),
        kendall=found.get("kendall"),
        refusal=refused,
    )
