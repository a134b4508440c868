"""A correlation as text: a table, a sentence and a verdict per metric, and on request everything behind them."""

from collections.abc import Sequence

from unveil_evalharness.correlate.correlation import Correlation, Stratum
from unveil_evalharness.correlate.details import details
from unveil_evalharness.correlate.layout import aligned
from unveil_evalharness.correlate.statistics import Estimate, Statistics
from unveil_evalharness.correlate.words import interval_text, number

__all__ = ["render"]


def render(correlation: Correlation, *, in_full: bool = False) -> str:
    """One table row per stratum, then a sentence each, what limits it and its verdict.

    Args:
        correlation: the result.
        in_full: add the tables of each stratum's study.
    """
    lines: list[str] = []
    if correlation.strata:
        header = ("metric", "against", "n", "Spearman", "Pearson", "Kendall", "per 0.01", "verdict")
        lines += aligned([header, *(_cells(stratum) for stratum in correlation.strata)])
        lines += [_footnote(correlation), ""]
    for stratum in correlation.strata:
        lines.append(f"- {stratum.answer}")
        lines += [f"    {caution}" for caution in stratum.cautions]
        if stratum.verdict is not None:
            lines.append(f"    Verdict: {stratum.verdict.text}")
        if in_full:
            lines += ["", *(f"    {line}".rstrip() for line in details(stratum))]
    lines += [f"- Left out of {item.metric}: {item.label}: {item.reason}." for item in correlation.left_out]
    return "\n".join(lines) if lines else "No finished results."


def _footnote(correlation: Correlation) -> str:
    level = f"{correlation.confidence:.0%}".replace("%", " %")
    found: Sequence[Statistics] = [
        stratum.statistics for stratum in correlation.strata if stratum.statistics is not None
    ]
    grouped = any(one.num_groups is not None for one in found)
    large = any(one.method != "bootstrap" for one in found)
    return (
        f"Intervals: {level} percentile bootstrap, {correlation.num_resamples} resamples"
        + (" of whole groups where points are grouped" if grouped else "")
        + ("; of its normal limit where n is large" if large else "")
        + "."
    )


def _cells(stratum: Stratum) -> tuple[str, ...]:
    metric, limit = stratum.column.metric, stratum.column.limit
    if limit is not None:
        metric += f" (limited to {limit})"
    objective = str(stratum.passport_fields["objective"])
    loss = objective if stratum.passport == objective else f"{objective} {stratum.passport[:6]}"
    if stratum.statistics is None:
        reason = stratum.refusal.reason if stratum.refusal is not None else "refused"
        return (metric, loss, str(len(stratum.points)), f"refused: {reason}", "", "", "", "")
    verdict = "" if stratum.verdict is None else stratum.verdict.code
    return (metric, loss, str(stratum.statistics.n), *_coefficients(stratum.statistics), verdict)


def _coefficients(statistics: Statistics) -> tuple[str, str, str, str]:
    def cell(estimate: Estimate, digits: int = 3) -> str:
        return f"{number(estimate.value, digits)} {interval_text(estimate.best, digits)}"

    return (cell(statistics.spearman), cell(statistics.pearson), cell(statistics.kendall), cell(statistics.slope, 4))
