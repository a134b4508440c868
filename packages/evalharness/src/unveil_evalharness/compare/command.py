"""``evalharness compare A B``: does B differ from A, paired by evaluation item?

Exit status: 0 compared, 2 bad input, 3 something was asked for that is not comparable (the rest is still shown).
"""

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from unveil_evalharness.compare.correction import Rule, adjust
from unveil_evalharness.compare.difference import NUM_RESAMPLES, Contrast, Settings, contrast
from unveil_evalharness.compare.pairing import Tables
from unveil_evalharness.compare.render import render
from unveil_evalharness.compare.select import choose_metrics, matching
from unveil_evalharness.compare.sides import Side, read_side
from unveil_evalharness.compare.verdict import Verdict, judge
from unveil_evalharness.errors import NotComparableError, UsageError

__all__ = ["CompareOptions", "main"]

NOT_COMPARABLE = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareOptions:
    """Compare two checkpoints, paired by evaluation item, with intervals, tests and effect sizes.

    Exit status: 0 compared, 2 bad input, 3 something is not comparable (the rest is still shown).
    """

    a: Annotated[Positional[str], arg(metavar="A")]
    """Output folder of `evalharness run`, or FOLDER:CHECKPOINT with a label or the start of a hash."""
    b: Annotated[Positional[str], arg(metavar="B")]
    """The other side, in the same form as A."""
    tasks: tuple[str, ...] = ()
    """Tasks or metrics separated by commas; all tasks when left out."""
    all_metrics: bool = False
    """Show every metric of the tasks, not the main one alone."""
    margin: float | None = None
    """Tolerated loss in the metrics' unit: also say whether B stays within it."""
    correction: Rule = "holm"
    """Correction of p-values over all rows: holm, bh (Benjamini and Hochberg) or none."""
    confidence: float = 0.95
    """Confidence of the two-sided intervals."""
    power: float = 0.8
    """With --margin: the wanted chance of a decision, for the number of items that would decide."""
    num_resamples: int = NUM_RESAMPLES
    """Bootstrap resamples and random sign flips."""
    seed: int = 0
    """Seed of the resampling."""
    json: bool = False
    """Print everything as JSON."""

    def __post_init__(self) -> None:
        """Refuses values no comparison can have."""
        if self.margin is not None and not self.margin > 0:
            raise UsageError(f"--margin must be above 0, got {self.margin}; no data prove a difference of exactly 0")
        if self.num_resamples < 100:
            raise UsageError(f"--num-resamples must be at least 100, got {self.num_resamples}")
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, got {self.seed}")
        for name in ("confidence", "power"):
            if not 0.5 < getattr(self, name) < 1:
                raise UsageError(f"--{name} must be between 0.5 and 1, got {getattr(self, name)}")


def main(options: CompareOptions) -> int:
    """Prints the comparison and returns the exit status.

    Raises:
        HarnessError: bad input; the command line turns it into one line and exit status 2.
    """
    a, b = read_side(options.a), read_side(options.b)
    contrasts, refusals = _contrasts(a, b, options)
    adjusted = [float(p) for p in adjust([one.p_value for one in contrasts], options.correction)]
    verdicts = _verdicts(contrasts, options)
    if options.json:
        sys.stdout.write(_as_json(a, b, contrasts, adjusted, verdicts, refusals) + "\n")
    elif contrasts:
        text = render(
            (a.name, b.name),
            contrasts,
            adjusted,
            verdicts,
            correction=options.correction,
            confidence=options.confidence,
        )
        sys.stdout.write(text + "\n")
    for refusal in refusals:
        sys.stderr.write(f"evalharness: error: {refusal}\n")
    if not contrasts and not refusals:
        sys.stderr.write("evalharness: error: neither side has a finished metric\n")
    return NOT_COMPARABLE if refusals or not contrasts else 0


def _contrasts(a: Side, b: Side, options: CompareOptions) -> tuple[list[Contrast], list[str]]:
    settings = Settings(num_resamples=options.num_resamples, seed=options.seed, confidence=options.confidence)
    contrasts: list[Contrast] = []
    refusals: list[str] = []
    tables = Tables()
    for metric in choose_metrics(a, b, options.tasks, everything=options.all_metrics):
        try:
            contrasts += [
                contrast(one, other, settings=settings, tables=tables) for one, other in matching(a, b, metric)
            ]
        except NotComparableError as error:
            refusals.append(str(error))
    return contrasts, refusals


def _verdicts(contrasts: list[Contrast], options: CompareOptions) -> list[Verdict | None]:
    if options.margin is None:
        return [None] * len(contrasts)
    alpha = (1 - options.confidence) / 2
    worse = adjust([one.p_worse for one in contrasts], options.correction)
    return [
        judge(one, margin=options.margin, alpha=alpha, power=options.power, p_worse=float(p))
        for one, p in zip(contrasts, worse, strict=True)
    ]


def _as_json(
    a: Side,
    b: Side,
    contrasts: list[Contrast],
    adjusted: list[float],
    verdicts: list[Verdict | None],
    refusals: list[str],
) -> str:
    metrics = []
    for one, p, verdict in zip(contrasts, adjusted, verdicts, strict=True):
        record = dataclasses.asdict(one)
        record["degrees_of_freedom"] = None if one.degrees_of_freedom == float("inf") else one.degrees_of_freedom
        record["p_adjusted"] = p
        record["verdict"] = None if verdict is None else dataclasses.asdict(verdict)
        metrics.append(record)
    content = {"a": a.name, "b": b.name, "metrics": metrics, "not_comparable": refusals}
    return json.dumps(content, allow_nan=False)
