"""Says a correlation in plain words, with what limits it; no sentence claims more than its numbers carry."""

import statistics
from collections.abc import Sequence

from unveil_evalharness.correlate.join import Column, Point
from unveil_evalharness.correlate.statistics import LOSS_STEP, MIN_GROUPS, Estimate, Statistics
from unveil_evalharness.statistics.intervals import Interval

__all__ = [
    "answer",
    "beats_baseline",
    "cautions",
    "interval",
    "interval_text",
    "named",
    "noise_note",
    "num_weak",
    "number",
]

_FEW = 10
"""Below this many points percentile intervals are too narrow: in simulation (normal data, correlation -0.8) the nominal
95 % interval of Pearson covers the truth 86 % of the time at 5 points, 91 % at 10 and 92 % at 20."""


def number(value: float, digits: int = 2) -> str:
    """``-0.5`` as ``−0.50`` with a true minus sign; no negative zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def interval(estimate: Estimate, digits: int = 2) -> str:
    """``[−0.97, −0.85]``, or that there is none."""
    if estimate.low is None or estimate.high is None:
        return "[no interval]"
    return f"[{number(estimate.low, digits)}, {number(estimate.high, digits)}]"


def interval_text(interval_: Interval | None, digits: int = 2) -> str:
    """``[−0.97, −0.85]``, or that there is none."""
    if interval_ is None:
        return "[no interval]"
    return f"[{number(interval_.low, digits)}, {number(interval_.high, digits)}]"


def named(x: str) -> str:
    """``the validation loss``, but ``imagenet_zs.acc1``: a column's name takes no article."""
    return f"the {x}" if x == "validation loss" else x


def answer(column: Column, points: Sequence[Point], statistics_: Statistics) -> str:
    """Whether a lower loss (or better x) goes with a better metric, how surely, on how many points, in plain words.

    A direction is claimed only when the interval of Spearman's coefficient leaves out zero, over `MIN_GROUPS` groups
    where points are grouped, and the permutation test agrees; when most values do not beat the trivial baseline, that
    is said in the same breath.
    """
    spearman, best = statistics_.spearman, statistics_.spearman.best
    level = f"{statistics_.confidence:.0%}".replace("%", " %")
    kind = "" if spearman.grouped is None else f" over {statistics_.num_groups} groups"
    about = f"{level} interval{kind} {interval_text(best)}"
    if spearman.few_groups:
        about = f"no interval of {statistics_.num_groups} groups, at least {MIN_GROUPS} are needed"
    figures = f"Spearman {number(spearman.value)}, {about}, n = {statistics_.n}"
    settled = best is not None and best.excludes(0.0) and statistics_.permutation_p_value <= 1 - statistics_.confidence
    better, x = ("lower", "less") if column.lower_x_is_better else ("higher", "more"), column.x
    if not settled:
        sentence = f"It is not settled whether {named(x)} ranks {column.metric} ({figures})."
    elif (spearman.value < 0) == (column.lower_x_is_better == column.higher_is_better):
        per, short = ("0.01", "loss") if x == "validation loss" else ("1", x)
        unit = 1.0 if per == "0.01" else 1.0 / LOSS_STEP
        change = unit * (-statistics_.slope.value if column.lower_x_is_better else statistics_.slope.value)
        unit_name = " percentage points" if column.unit == "percent" else ""
        gain = f"{per} {better[1]} {short} goes with {'+' if change > 0 else ''}{number(change, 3)}{unit_name}"
        sentence = f"A {better[0]} {x} goes with a better {column.metric} ({figures}); {gain}."
    else:
        sentence = f"A {better[0]} {x} goes with a worse {column.metric} ({figures}): do not choose by it here."
    weak = num_weak(column, points)
    if 2 * weak > len(points):
        sentence += (
            f" {weak} of {len(points)} values do not beat the trivial baseline by two standard errors, "
            "so this says little."
        )
    return sentence


def cautions(column: Column, points: Sequence[Point], statistics_: Statistics) -> tuple[str, ...]:
    """What a reader must know before trusting the figures, most important first."""
    notes: list[str] = []
    if column.limit is not None:
        notes.append(f"Limited to {column.limit} images (--limit): fit for a look, not for a conclusion.")
    weak = num_weak(column, points)
    if 0 < 2 * weak <= len(points):  # when most are weak, the answer itself says so
        notes.append(
            f"{weak} of {len(points)} values do not beat the trivial baseline by two standard errors; "
            "their order may be noise."
        )
    noise = noise_note(points)
    if noise is not None:
        notes.append(noise)
    if len(points) < _FEW and statistics_.spearman.best is not None:
        notes.append(f"With {len(points)} checkpoints a bootstrap interval tends to be too narrow.")
    if abs(statistics_.spearman.value) > 1 - 1e-12:
        width = ", so every resample is too and the rank intervals have no width"
        notes.append(
            f"The order is perfect{width if statistics_.spearman.best is not None else ''}; by chance alone a "
            f"perfect order of {len(points)} has probability {statistics_.permutation_p_value:.2g}."
        )
    num_clusters = len({point.cluster or point.run for point in points})
    if num_clusters < len(points):
        tail = "the interval treats them as independent, which is optimistic"
        if statistics_.spearman.grouped is not None:
            few = ", and so few groups make even that too narrow" if num_clusters < _FEW else ""
            tail = f"the interval resamples whole groups{few}"
        if statistics_.spearman.few_groups:
            tail = "so few groups have no interval"
        kind = "groups" if points[0].cluster and points[0].cluster != points[0].run else "runs"
        notes.append(f"The {len(points)} checkpoints come from {num_clusters} {kind}; {tail}.")
    if statistics_.num_degenerate:
        notes.append(
            f"{statistics_.num_degenerate} of {statistics_.num_resamples} resamples drew a constant column "
            "and were left out."
        )
    return tuple(notes)


def beats_baseline(
    value: float, baseline: float | None, standard_error: float | None, *, higher_is_better: bool = True
) -> bool:
    """Whether a value is better than the trivial baseline by more than two standard errors (taken as 0 when unknown).

    Without a baseline there is nothing to beat, and the answer is True.
    """
    if baseline is None:
        return True
    margin = value - baseline if higher_is_better else baseline - value
    return margin > 2 * (standard_error or 0.0)


def num_weak(column: Column, points: Sequence[Point]) -> int:
    """How many values do not beat the trivial baseline by two standard errors."""
    return sum(
        not beats_baseline(
            point.value, point.baseline, point.value_standard_error, higher_is_better=column.higher_is_better
        )
        for point in points
    )


def noise_note(points: Sequence[Point]) -> str | None:
    """That the values spread by no more than their own error; None when they do, or no error is known."""
    errors = [point.value_standard_error for point in points if point.value_standard_error is not None]
    if not errors:
        return None
    spread, error = statistics.stdev(point.value for point in points), statistics.median(errors)
    if error < spread:
        return None
    return (
        f"The values spread by {number(spread, 4)} (standard deviation), no more than their own standard error "
        f"{number(error, 4)}: a larger evaluation set or more seeds would be needed to rank these checkpoints."
    )
