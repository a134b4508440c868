"""May one trust the validation loss for a task? *usable*, *usable one-sided* or *not usable*, by a fixed rule.

The rule (docs/correlate.md explains it):

1. *It ranks.* Spearman's interval, in the direction that helps, stays at least `RANKS` away from zero, and the
   permutation test agrees. Where points are grouped (by run, or by model), the interval is that of resampled groups,
   and there must be `MIN_GROUPS` of them.
2. *It ranks within a model.* With the means of the models taken away, Spearman's interval still leaves out zero.
3. *The metric measures something.* Most values beat the trivial baseline, and they spread by more than their own
   error.
4. *Good news is news.* Of the steps to a longer run on which the loss fell, more gained than a coin would have: the
   Wilson interval of the share lies above one half. And they gained more often than those on which it rose, by Fisher's
   exact test: where longer runs gain anyhow, a falling loss tells nothing.
5. *Bad news is news.* Likewise of the steps on which the loss rose, more lost, and more often than the others.

1 to 5: usable. 1 to 4: usable one-sided. Otherwise not usable. What cannot be tested for want of such points (one
model, one length) is skipped and said; where there are steps but not one of them rises, nothing is known of that side,
and the verdict is one-sided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unveil_evalharness.correlate.join import Column, Point
from unveil_evalharness.correlate.statistics import MIN_GROUPS, Estimate, Statistics
from unveil_evalharness.correlate.study import Study
from unveil_evalharness.correlate.words import interval_text, named, noise_note, num_weak, number
from unveil_evalharness.statistics.steps import Side

__all__ = ["RANKS", "Criterion", "Verdict", "judge"]

RANKS = 0.5
"""Spearman's interval must stay this far from zero to call x a ranking; about two of three pairs in the right order."""

Code = Literal["usable", "usable one-sided", "not usable"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """One condition of the rule."""

    name: str
    holds: bool | None
    """None when the points cannot test it."""
    text: str
    """What was found, with its numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The verdict and what it rests on."""

    code: Code
    text: str
    """One sentence."""
    criteria: tuple[Criterion, ...]


def judge(column: Column, points: Sequence[Point], statistics: Statistics, study: Study) -> Verdict:
    """Applies the rule to one stratum."""
    sign = 1 if column.lower_x_is_better != column.higher_is_better else -1  # of a helpful Spearman's coefficient
    criteria = [_ranks(statistics, sign), _ranks_within(study, sign), _measures(column, points)]
    sides = _sides(column, statistics, study)
    if any(criterion.holds is False for criterion in criteria) or sides[0].holds is False:
        code: Code = "not usable"
    elif sides[1].holds is False:
        code = "usable one-sided"
    else:
        code = "usable"
    criteria += sides
    return Verdict(code=code, text=_text(column, code, criteria), criteria=tuple(criteria))


def _ranks(statistics: Statistics, sign: int) -> Criterion:
    spearman, level = statistics.spearman, 1 - statistics.confidence
    reach = _nearest(spearman, sign)
    holds = reach is not None and reach >= RANKS and statistics.permutation_p_value <= level
    text = f"Spearman {number(spearman.value)} {interval_text(spearman.best)}, n = {statistics.n}"
    if statistics.num_groups is not None and statistics.num_groups < MIN_GROUPS:
        holds = False
        text += f"; its points are of {statistics.num_groups} groups, at least {MIN_GROUPS} are needed"
    return Criterion(name="it ranks", holds=holds, text=text)


def _ranks_within(study: Study, sign: int) -> Criterion:
    name = "it ranks within a model"
    if study.within is None:
        return Criterion(name=name, holds=None, text="there are not several models with several runs each")
    spearman = study.within.statistics.spearman
    reach = _nearest(spearman, sign)
    text = f"Spearman {number(spearman.value)} {interval_text(spearman.best)} with the models' means taken away"
    return Criterion(name=name, holds=reach is not None and reach > 0, text=text)


def _measures(column: Column, points: Sequence[Point]) -> Criterion:
    name = "the metric measures something"
    weak, noise = num_weak(column, points), noise_note(points)
    if 2 * weak > len(points):
        text = f"{weak} of {len(points)} values do not beat the trivial baseline by two standard errors"
        return Criterion(name=name, holds=False, text=text)
    if noise is not None:
        return Criterion(name=name, holds=False, text=noise)
    if all(point.baseline is None and point.value_standard_error is None for point in points):
        return Criterion(name=name, holds=None, text="neither a baseline nor a standard error is known")
    return Criterion(name=name, holds=True, text=f"{len(points) - weak} of {len(points)} values beat the baseline")


def _sides(column: Column, statistics: Statistics, study: Study) -> list[Criterion]:
    better, worse = ("fell", "rose") if column.lower_x_is_better else ("rose", "fell")
    names = (f"a {_noun(better)} {column.x} is informative", f"a {_noun(worse)} {column.x} is informative")
    if study.steps is None:
        return [Criterion(name=name, holds=None, text="no model was trained to several lengths") for name in names]
    falling, rising, p_value = study.steps.falling, study.steps.rising, study.steps.p_value
    apart = p_value is None or p_value <= 1 - statistics.confidence
    gained = _beside(rising.num_gained, rising.num_steps, "gained", worse, p_value)
    lost = _beside(falling.num_lost, falling.num_steps, "lost", better, p_value)
    return [
        Criterion(name=names[0], holds=apart and falling.gained.low > 0.5, text=_side(falling, better) + gained),
        Criterion(name=names[1], holds=apart and rising.lost.low > 0.5, text=_side(rising, worse) + lost),
    ]


def _beside(num: int, num_steps: int, what: str, verb: str, p_value: float | None) -> str:
    """What the steps of the other side did: longer runs may gain whatever x does."""
    if not num_steps:
        return f"; it never {verb}, and whether longer runs have {what} anyhow is not known"
    known = "" if p_value is None else f" (Fisher's p = {p_value:.2g})"
    return f"; where it {verb}, {num} of {num_steps} {what}{known}"


def _noun(verb: str) -> str:
    return "falling" if verb == "fell" else "rising"


def _side(side: Side, verb: str) -> str:
    if not side.num_steps:
        return f"it never {verb} from a run to the next longer one"
    return f"it {verb} on {side.num_steps} steps to a longer run; {side.num_gained} gained, {side.num_lost} lost"


def _nearest(estimate: Estimate, sign: int) -> float | None:
    """The end of the interval nearest to "no help", positive where even that end helps."""
    best = estimate.best
    return None if best is None else min(sign * best.low, sign * best.high)


def _text(column: Column, code: Code, criteria: Sequence[Criterion]) -> str:
    failed = [criterion for criterion in criteria if criterion.holds is False]
    subject = named(column.x)
    subject = subject[0].upper() + subject[1:] if subject.startswith("the ") else subject
    if code == "not usable":
        reasons = "; ".join(f"that {criterion.name} is not shown ({criterion.text})" for criterion in failed)
        return f"{subject} is not usable for {column.metric}: {reasons}."
    better, worse = ("falling", "rising") if column.lower_x_is_better else ("rising", "falling")
    if code == "usable one-sided":
        return (
            f"{subject} is usable one-sided for {column.metric}: a {better} one is informative, a {worse} one is "
            f"not ({failed[0].text})."
        )
    untested = all(criterion.holds is None for criterion in criteria[3:])
    sides = "; its two sides are untested" if untested else f", {better} or {worse}"
    return f"{subject} is usable for {column.metric}{sides}."
