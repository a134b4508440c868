"""What a run will score at a later length, from the validation loss it has now.

Learnt from known runs whose loss was known at an earlier length in the same proportion to their own: a run asked about
at 125k steps for 500k learns from runs of four times the length at which their loss is looked up.
"""

import math

import numpy as np

from unveil_evalharness.errors import ResultsError
from unveil_evalharness.predict.forecast import Forecast, forecast, from_features, refuse_other_passport
from unveil_evalharness.predict.known import KnownRuns, Query

__all__ = ["forecast_early"]

_NAMES = ("loss", "log parameters", "log steps")
_PROPORTION = 0.05
"""How far two proportions of lengths may lie apart and count as equal."""


def forecast_early(known: KnownRuns, query: Query, *, at_steps: int, level: float = 0.9) -> Forecast:
    """The score of `query` once it has run for `at_steps`.

    Args:
        known: without later lengths of the query itself.
        query: with its loss so far.
        at_steps: the length that is asked about.
        level: share of intervals that shall hold the truth.

    Raises:
        ResultsError: `at_steps` lies before the run's last loss, or no known runs have their loss at this proportion.
        NotComparableError: the query's loss has another passport than the known losses.
    """
    if at_steps < query.steps:
        raise ResultsError(
            f"--at-steps {at_steps} lies before the last loss of {query.label!r} at {query.steps}; ask for a later one"
        )
    if at_steps == query.steps:
        return forecast(known, query, level=level)
    refuse_other_passport(known, query)
    proportion = at_steps / query.steps
    earlier = [_earlier(run, proportion) for run in known.runs]
    usable = known.keep([point is not None for point in earlier])
    points = [point for point in earlier if point is not None]
    if not points:
        raise ResultsError(
            f"none of the {len(known)} known runs in {known.origin} has a loss at 1/{proportion:.3g} of its length, as "
            f"{query.label!r} would; ask for an --at-steps in a proportion that known runs have"
        )
    rows = np.array(
        [
            (loss, math.log(run.params), math.log(steps))
            for (steps, loss), run in zip([*points, (query.steps, query.loss)], [*usable.runs, query], strict=True)
        ]
    )
    return from_features(usable, query, rows, names=_NAMES, level=level, at_steps=at_steps)


def _earlier(run: Query, proportion: float) -> tuple[int, float] | None:
    """The point of a run's history at its length over `proportion`."""
    for steps, loss in run.history:
        if abs(run.steps / steps / proportion - 1) <= _PROPORTION:
            return steps, loss
    return None
