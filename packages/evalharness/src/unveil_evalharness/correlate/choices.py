"""What choosing by the loss costs, per model and overall, and against taking the longest run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unveil_evalharness.correlate.columns import Columns
from unveil_evalharness.correlate.join import Point
from unveil_evalharness.statistics.intervals import Interval, percentile_interval
from unveil_evalharness.statistics.ordering import choice_by_length, ordering, ordering_of_counts, regret
from unveil_evalharness.statistics.resampling import draw_counts, draw_group_counts

__all__ = ["Choice", "Choices", "LengthChoice", "OrderedPairs", "choices_of"]

MAX_RESAMPLED = 400
"""Beyond this many points the accuracy has no bootstrap interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderedPairs:
    """Pairs of points that x puts in the order of y."""

    accuracy: float
    interval: Interval | None
    num_pairs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The run of lowest loss among some."""

    among: str
    """A model, or "all"."""
    chosen: str
    best: str
    regret: float
    """Best value minus chosen value, in the metric's unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthChoice:
    """Taking the longest run of each setting, or the one of lowest loss."""

    num_settings: int
    last_mean: float
    last_worst: float
    lowest_mean: float
    lowest_worst: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """Ordering accuracy and regrets."""

    overall: OrderedPairs
    within_model: OrderedPairs | None
    choices: tuple[Choice, ...]
    by_length: LengthChoice | None


def choices_of(
    columns: Columns, points: Sequence[Point], *, num_resamples: int, seed: int, confidence: float
) -> Choices:
    """Everything about choosing by x."""
    counts = None
    if len(points) <= MAX_RESAMPLED:
        generator = np.random.default_rng(seed)
        counts = (
            draw_counts(generator, num_resamples, len(points))
            if columns.cluster is None
            else draw_group_counts(generator, num_resamples, columns.cluster)
        )

    def pairs(groups: np.ndarray | None) -> OrderedPairs | None:
        found = ordering(columns.x, columns.y, groups=groups)
        if not found.num_pairs:
            return None
        resampled = None if counts is None else ordering_of_counts(columns.x, columns.y, counts, groups=groups)
        interval = None if resampled is None else percentile_interval(resampled, confidence)
        return OrderedPairs(accuracy=found.accuracy, interval=interval, num_pairs=found.num_pairs)

    overall = pairs(None)
    assert overall is not None  # a constant metric was refused before
    return Choices(
        overall=overall,
        within_model=None if columns.model is None else pairs(columns.model),
        choices=_choices(columns, points),
        by_length=_by_length(columns),
    )


def _choices(columns: Columns, points: Sequence[Point]) -> tuple[Choice, ...]:
    inside = {"all": np.arange(len(points))}
    if columns.model is not None:
        for label in np.unique(columns.model):
            members = np.flatnonzero(columns.model == label)
            if len(members) > 1:
                inside[points[members[0]].model] = members
    found: list[Choice] = []
    for name, members in inside.items():
        one = regret(columns.x[members], columns.y[members])
        chosen, best = points[members[one.chosen]], points[members[one.best]]
        found.append(Choice(among=name, chosen=chosen.label, best=best.label, regret=one.regret))
    return tuple(found)


def _by_length(columns: Columns) -> LengthChoice | None:
    if columns.setting is None or columns.length is None:
        return None
    last, lowest = choice_by_length(columns.x, columns.y, columns.setting, columns.length)
    if not len(last):
        return None
    return LengthChoice(
        num_settings=len(last),
        last_mean=float(last.mean()),
        last_worst=float(last.max()),
        lowest_mean=float(lowest.mean()),
        lowest_worst=float(lowest.max()),
    )
