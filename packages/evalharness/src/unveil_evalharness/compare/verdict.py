"""Did the second side stay within the margin, is it worse, or do the data not say?

- *ok*: the one-sided lower bound of the gain is above ``-margin`` (non-inferior). A side that is a whole margin worse
  passes with probability alpha at most.
- *regressed*: not ok, and worse than the first side beyond doubt: the one-sided p-value, corrected for the number of
  metrics, is at most alpha. An unchanged side is called regressed with probability alpha at most.
- *undecided*: neither.

The two errors are those of telling "unchanged" from "a margin worse"; in between, any answer is right.
"""

from dataclasses import dataclass
from typing import Literal

from unveil_evalharness.compare.difference import Contrast
from unveil_evalharness.compare.power import Plan, plan

__all__ = ["Outcome", "Verdict", "judge"]

Outcome = Literal["ok", "regressed", "undecided"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The answer on one metric, with what it rests on."""

    outcome: Outcome
    margin: float
    """Tolerated loss, in the metric's unit."""
    lower: float
    """One-sided lower bound of the gain."""
    p_worse: float
    """Corrected."""
    plan: Plan


def judge(contrast: Contrast, *, margin: float, alpha: float, power: float, p_worse: float) -> Verdict:
    """Decides one metric.

    Args:
        contrast: both sides.
        margin: tolerated loss, above 0, in the metric's unit.
        alpha: level of the bound and of the test.
        power: wanted chance of a decision, for the plan.
        p_worse: the contrast's one-sided p-value after correction over all metrics.
    """
    lower = contrast.lower_bound(alpha)
    outcome: Outcome = "undecided"
    if lower > -margin:
        outcome = "ok"
    elif contrast.gain < 0 and p_worse <= alpha:
        outcome = "regressed"
    return Verdict(
        outcome=outcome,
        margin=margin,
        lower=lower,
        p_worse=p_worse,
        plan=plan(contrast, margin=margin, alpha=alpha, power=power),
    )
