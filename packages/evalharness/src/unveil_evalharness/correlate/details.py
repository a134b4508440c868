"""The study behind a verdict as text: a short table for each of its parts."""

from unveil_evalharness.correlate.choices import Choices, OrderedPairs
from unveil_evalharness.correlate.conditioned import Explained, Partial, Within
from unveil_evalharness.correlate.correlation import Stratum
from unveil_evalharness.correlate.forecasts import ForecastSummary
from unveil_evalharness.correlate.layout import aligned
from unveil_evalharness.correlate.noise import NoiseSummary
from unveil_evalharness.correlate.parts import Part
from unveil_evalharness.correlate.sources import SourceOffset
from unveil_evalharness.correlate.statistics import Estimate, Statistics
from unveil_evalharness.correlate.verdict import Verdict
from unveil_evalharness.correlate.words import interval_text, number
from unveil_evalharness.statistics.intervals import Interval
from unveil_evalharness.statistics.steps import Side, Steps

__all__ = ["details"]

_MARKS = {True: "yes", False: "no", None: "untested"}


def details(stratum: Stratum) -> list[str]:
    """Lines; none for a refused stratum."""
    statistics, study, verdict = stratum.statistics, stratum.study, stratum.verdict
    if statistics is None or study is None or verdict is None:
        return []
    unit, x = stratum.column.unit, stratum.column.x
    blocks = [_verdict(verdict), _coefficients(statistics)]
    blocks.append(_parts(study.parts) if study.parts else [])
    blocks.append(
        _steps(study.steps, x, lower_is_better=stratum.column.lower_x_is_better) if study.steps is not None else []
    )
    blocks.append(_conditioned(study.within, study.partial, study.explained, x))
    blocks.append(_choices(study.choices, unit) if study.choices is not None else [])
    blocks.append(_forecasts(study.forecasts) if study.forecasts else [])
    blocks.append(_offsets(study.offsets, x) if study.offsets else [])
    blocks.append(_noise(study.noise) if study.noise is not None else [])
    return [line for block in blocks if block for line in (*block, "")]


def _signed(value: float, digits: int = 3) -> str:
    return ("+" if value > 0 else "") + number(value, digits)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _shares(interval: Interval) -> str:
    return f"{100 * interval.low:.0f} to {100 * interval.high:.0f} %"


def _verdict(verdict: Verdict) -> list[str]:
    rows = [("the rule", "holds", "found")]
    rows += [(one.name, _MARKS[one.holds], one.text) for one in verdict.criteria]
    return [f"Verdict: {verdict.code}", *aligned(rows)]


def _coefficients(statistics: Statistics) -> list[str]:
    groups = "groups" if statistics.num_groups is None else f"{statistics.num_groups} groups"
    rows = [(f"n = {statistics.n}", "value", "percentile", "BCa", f"resampling {groups}")]
    for name, estimate, digits in (
        ("Pearson", statistics.pearson, 3),
        ("Spearman", statistics.spearman, 3),
        ("Kendall", statistics.kendall, 3),
        ("per 0.01", statistics.slope, 4),
    ):
        plain = (
            None if estimate.low is None or estimate.high is None else Interval(low=estimate.low, high=estimate.high)
        )
        percentile, bca, grouped = (
            interval_text(one, digits) if one is not None else "–" for one in (plain, estimate.bca, estimate.grouped)
        )
        rows.append((name, number(estimate.value, digits), percentile, bca, grouped))
    return aligned(rows)


def _parts(parts: tuple[Part, ...]) -> list[str]:
    rows = [("group", "", "n", "Pearson", "Spearman", "Kendall")]
    for part in parts:
        if part.pearson is None or part.spearman is None or part.kendall is None:
            rows.append((part.kind, part.name, str(part.n), _refused(part), "", ""))
            continue
        pearson, spearman = _with_interval(part.pearson), _with_interval(part.spearman)
        rows.append((part.kind, part.name, str(part.n), pearson, spearman, _signed(part.kendall.value)))
    return aligned(rows)


def _refused(part: Part) -> str:
    return f"refused: {part.refusal.reason}" if part.refusal is not None else "refused"


def _with_interval(estimate: Estimate) -> str:
    return f"{_signed(estimate.value)} {interval_text(estimate.best)}"


def _steps(found: Steps, x: str, *, lower_is_better: bool) -> list[str]:
    def share(side: Side) -> str:
        return f" ({_shares(side.gained)})" if side.num_steps else ""

    falling, rising = found.falling, found.rising
    good, bad = ("falling", "rising") if lower_is_better else ("rising", "falling")
    return [
        f"Steps from a run to the next longer one of the same model and data, by the {x}:",
        f"  {falling.num_gained} of {falling.num_steps} {good} steps gained{share(falling)}, "
        f"{rising.num_gained} of {rising.num_steps} {bad} steps did{share(rising)}"
        + ("" if found.p_value is None else f"; Fisher's p = {found.p_value:.2g}"),
    ]


def _conditioned(within: Within | None, partial: Partial | None, explained: Explained | None, x: str) -> list[str]:
    lines: list[str] = []
    if within is not None:
        found = within.statistics
        lines.append(
            f"Within {within.num_models} models, means taken away: Pearson {_with_interval(found.pearson)}, "
            f"Spearman {_with_interval(found.spearman)}"
        )
    if partial is not None:
        lines.append(
            f"Given {', '.join(partial.controls)}: partial Pearson {_signed(partial.pearson)} "
            f"{interval_text(partial.pearson_interval)}, partial Spearman "
            + ("nothing is left of the ranks" if partial.spearman is None else _signed(partial.spearman))
        )
    if explained is not None:
        lines.append(
            f"R²: {x} {explained.by_x:.3f}; {', '.join(explained.controls)} {explained.by_controls:.3f}; all "
            f"{explained.by_both:.3f} (the {x} adds {explained.gain:.3f})"
        )
    return lines


def _choices(found: Choices, unit: str) -> list[str]:
    def pairs(one: OrderedPairs) -> str:
        return f"{_percent(one.accuracy)} of {one.num_pairs} pairs" + (
            "" if one.interval is None else f" ({_shares(one.interval)})"
        )

    lines = [f"In the right order: {pairs(found.overall)}"]
    if found.within_model is not None:
        lines[0] += f"; within a model {pairs(found.within_model)}"
    rows = [("choosing among", "takes", "regret", "best")]
    rows += [(one.among, one.chosen, number(one.regret, 4), one.best) for one in found.choices]
    lines += [f"Regret in {unit or 'units of the metric'}", *aligned(rows)]
    if found.by_length is not None:
        one = found.by_length
        lines.append(
            f"Of {one.num_settings} models and data: the last run loses {one.last_mean:.3f} on average, "
            f"{one.last_worst:.2f} at worst; the one of lowest loss {one.lowest_mean:.3f} and {one.lowest_worst:.2f}"
        )
    return lines


def _forecasts(found: tuple[ForecastSummary, ...]) -> list[str]:
    first = found[0]
    rows = [("forecast by", "knowing", "mean error", "worst bias", f"{_percent(first.confidence)} intervals hold")]
    rows += [
        (
            one.model,
            ", ".join(one.known),
            f"{one.mean_absolute_error:.3f}",
            _signed(one.worst_group_bias, 2),
            f"{_percent(one.coverage)} ({_shares(one.coverage_interval)})",
        )
        for one in found
    ]
    return [f"Each of {first.num_groups} {first.left_out}s forecast from the others", *aligned(rows)]


def _offsets(found: tuple[SourceOffset, ...], x: str) -> list[str]:
    lines: list[str] = []
    for one in found:
        text = (
            f"At equal value, the {x} of runs on {one.source} lies {_signed(one.offset.value, 4)} "
            f"{interval_text(one.offset.interval, 4)} from that of {one.reference} (n = {one.n})"
        )
        if one.matched is not None:
            text += (
                f"; at equal model and length {_signed(one.matched.difference_x, 4)} in {x} and "
                f"{_signed(one.matched.difference_y, 2)} in value ({one.matched.num_pairs} pairs)"
            )
        lines.append(text)
    return lines


def _noise(found: NoiseSummary) -> list[str]:
    corrected = "not defined" if found.corrected_pearson is None else _signed(found.corrected_pearson)
    return [
        f"Seeds ({found.kind}): standard deviation {found.value.standard_deviation:.4g} "
        f"({found.value.degrees} degrees of freedom); values nearer than {found.value_floor:.4g} may differ by chance",
        f"Reliability {found.reliability_value:.2f} of the values, {found.reliability_loss:.2f} of the losses; "
        f"Pearson without that noise {corrected}",
    ]
