"""``evalharness correlate OUT[,OUT]``: a table and plain words on stdout, or JSON.

Exit status: 0 when at least one metric has a correlation, 2 on bad input, 3 when nothing can be compared.
"""

import sys
from dataclasses import dataclass

from tyro.conf import Positional

from unveil_evalharness.correlate.correlation import NUM_RESAMPLES, Correlation, Stratum, correlate
from unveil_evalharness.correlate.evidence import split_paths
from unveil_evalharness.correlate.statistics import Estimate, Statistics
from unveil_evalharness.correlate.words import interval, number
from unveil_evalharness.errors import NotComparableError, UsageError

__all__ = ["CorrelateOptions", "main", "render"]

NOTHING_TO_COMPARE = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrelateOptions:
    """Relate the final validation loss of checkpoints to what they score downstream."""

    results: Positional[tuple[str, ...]]
    """Output folders of `evalharness run`; several may be separated by commas or spaces."""
    metric: tuple[str, ...] = ()
    """Metrics (imagenet_ft.acc1) or tasks (imagenet_ft) to show, separated by commas; all when left out."""
    num_resamples: int = NUM_RESAMPLES
    """Bootstrap resamples behind each interval."""
    seed: int = 0
    """Seed of the resampling."""
    joint: bool = False
    """Insist on one correlation per metric over all checkpoints; refused when their losses or protocols differ."""
    json: bool = False
    """Print everything, with the points, as JSON."""

    def __post_init__(self) -> None:
        """Refuses values no correlation can have."""
        if self.num_resamples < 100:
            raise UsageError(f"--num-resamples must be at least 100 to hold a 95 % interval, got {self.num_resamples}")
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, got {self.seed}")


def main(options: CorrelateOptions) -> int:
    """Prints the correlation and returns the exit status.

    Raises:
        HarnessError: bad input; the command line turns it into one line and exit status 2.
    """
    try:
        correlation = correlate(
            split_paths(options.results),
            metrics=[piece.strip() for text in options.metric for piece in text.split(",") if piece.strip()],
            num_resamples=options.num_resamples,
            seed=options.seed,
            joint=options.joint,
        )
    except NotComparableError as error:
        sys.stderr.write(f"evalharness: error: {error}\n")
        return NOTHING_TO_COMPARE
    sys.stdout.write((correlation.to_json() if options.json else render(correlation)) + "\n")
    if correlation.any_ok:
        return 0
    reason = (
        "no metric has enough comparable checkpoints"
        if correlation.strata
        else "no checkpoint has both a loss and a value"
    )
    sys.stderr.write(f"evalharness: error: {reason}; see the reasons on stdout\n")
    return NOTHING_TO_COMPARE


def render(correlation: Correlation) -> str:
    """The correlation as text: one table row per stratum, then a sentence each and what limits it."""
    lines: list[str] = []
    if correlation.strata:
        header = ("metric", "loss", "n", "Spearman", "Pearson", "Kendall", "per 0.01 loss")
        lines += _table([header, *(_cells(stratum) for stratum in correlation.strata)])
        level = f"{correlation.confidence:.0%}".replace("%", " %")
        lines += [f"Intervals: {level} percentile bootstrap, {correlation.num_resamples} resamples.", ""]
    for stratum in correlation.strata:
        lines.append(f"- {stratum.answer}")
        lines += [f"    {caution}" for caution in stratum.cautions]
    lines += [f"- Left out of {item.metric}: {item.label}: {item.reason}." for item in correlation.left_out]
    return "\n".join(lines) if lines else "No finished results."


def _cells(stratum: Stratum) -> tuple[str, ...]:
    metric, limit = stratum.column.metric, stratum.column.limit
    if limit is not None:
        metric += f" (limited to {limit})"
    loss = f"{stratum.passport_fields['objective']} {stratum.passport[:6]}"
    if stratum.statistics is None:
        reason = stratum.refusal.reason if stratum.refusal is not None else "refused"
        return (metric, loss, str(len(stratum.points)), f"refused: {reason}", "", "", "")
    return (metric, loss, str(stratum.statistics.n), *_coefficients(stratum.statistics))


def _coefficients(statistics: Statistics) -> tuple[str, str, str, str]:
    def cell(estimate: Estimate, digits: int = 2) -> str:
        return f"{number(estimate.value, digits)} {interval(estimate, digits)}"

    return (
        cell(statistics.spearman),
        cell(statistics.pearson),
        cell(statistics.kendall),
        cell(statistics.slope, 4),
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("─" * width for width in widths), *lines[1:]]
