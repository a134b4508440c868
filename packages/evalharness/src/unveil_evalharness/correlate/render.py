"""A correlation as text: a table, a sentence and a verdict per metric, and on request everything behind them.

What is refused, or left out, for the same reason is one line.
"""

from collections import Counter
from collections.abc import Sequence

from unveil_evalharness.correlate.correlation import Correlation, Stratum
from unveil_evalharness.correlate.details import details
from unveil_evalharness.correlate.join import LeftOut
from unveil_evalharness.correlate.layout import aligned
from unveil_evalharness.correlate.statistics import Estimate, Statistics
from unveil_evalharness.correlate.words import interval_text, named, number

__all__ = ["render"]

_MOST_LABELS = 5


def render(correlation: Correlation, *, in_full: bool = False) -> str:
    """One table row per stratum, then a sentence each, what limits it and its verdict; refused ones follow in groups.

    Args:
        correlation: the result.
        in_full: add the tables of each stratum's study.
    """
    lines: list[str] = []
    found = [stratum for stratum in correlation.strata if stratum.refusal is None]
    if found:
        header = ("metric", "against", "n", "Spearman", "Pearson", "Kendall", "per 0.01", "verdict")
        lines += aligned([header, *(_cells(stratum) for stratum in found)])
        lines += [_footnote(correlation), *_units(found), ""]
    for stratum in found:
        lines.append(f"- {stratum.answer}")
        lines += [f"    {caution}" for caution in stratum.cautions]
        if stratum.verdict is not None:
            lines.append(f"    Verdict: {stratum.verdict.text}")
        if in_full:
            lines += ["", *(f"    {line}".rstrip() for line in details(stratum))]
    lines += [*_refused(correlation.strata), *_left_out(correlation.left_out)]
    return "\n".join(lines) if lines else "No finished results."


def _refused(strata: Sequence[Stratum]) -> list[str]:
    """A line for all metrics that are refused against one loss for one reason."""
    groups: dict[tuple[str, str], list[Stratum]] = {}
    for stratum in strata:
        if stratum.refusal is not None:
            groups.setdefault((stratum.passport, stratum.refusal.text), []).append(stratum)
    return [_refusal(members) for members in groups.values()]


def _refusal(strata: Sequence[Stratum]) -> str:
    first, refusal = strata[0], strata[0].refusal
    assert refusal is not None
    metrics = ", ".join(
        metric if times == 1 else f"{metric} (measured in {times} ways)"
        for metric, times in Counter(map(_metric, strata)).items()
    )
    labels = list(dict.fromkeys(point.label for stratum in strata for point in stratum.points))
    more = f" and {len(labels) - _MOST_LABELS} more" if len(labels) > _MOST_LABELS else ""
    of = f" of {_loss(first)}" if first.passport != first.passport_fields["objective"] else ""
    return (
        f"- No correlation with {named(first.column.x)}{of} ({', '.join(labels[:_MOST_LABELS])}{more}): "
        f"{refusal.text} [refused: {refusal.reason}]. Metrics: {metrics}."
    )


def _left_out(items: Sequence[LeftOut]) -> list[str]:
    """A line for all metrics that a checkpoint is left out of for one reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for item in items:
        groups.setdefault((item.label, item.reason), []).append(item.metric)
    return [
        f"- Left out of {', '.join(dict.fromkeys(metrics))}: {label}: {reason}."
        for (label, reason), metrics in groups.items()
    ]


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


def _units(strata: Sequence[Stratum]) -> list[str]:
    """What a change of a metric in percent is counted in: most metrics are fractions."""
    metrics = dict.fromkeys(stratum.column.metric for stratum in strata if stratum.column.unit == "percent")
    if not metrics:
        return []
    return [f"Values in percent, so that changes are percentage points: {', '.join(metrics)}."]


def _metric(stratum: Stratum) -> str:
    metric, limit = stratum.column.metric, stratum.column.limit
    return metric if limit is None else f"{metric} (limited to {limit})"


def _loss(stratum: Stratum) -> str:
    objective = str(stratum.passport_fields["objective"])
    return objective if stratum.passport == objective else f"{objective} {stratum.passport[:6]}"


def _cells(stratum: Stratum) -> tuple[str, ...]:
    assert stratum.statistics is not None
    verdict = "" if stratum.verdict is None else stratum.verdict.code
    statistics = stratum.statistics
    return (_metric(stratum), _loss(stratum), str(statistics.n), *_coefficients(statistics), verdict)


def _coefficients(statistics: Statistics) -> tuple[str, str, str, str]:
    def cell(estimate: Estimate, digits: int = 3) -> str:
        return f"{number(estimate.value, digits)} {interval_text(estimate.best, digits)}"

    return (cell(statistics.spearman), cell(statistics.pearson), cell(statistics.kendall), cell(statistics.slope, 4))
