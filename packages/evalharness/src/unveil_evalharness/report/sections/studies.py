"""What stands behind a verdict, as tables: the rule, the groups, the choices and the forecasts."""

from unveil_evalharness.correlate.correlation import Correlation, Stratum
from unveil_evalharness.correlate.parts import Part
from unveil_evalharness.correlate.statistics import Estimate, Statistics
from unveil_evalharness.correlate.study import Study
from unveil_evalharness.correlate.verdict import Verdict
from unveil_evalharness.correlate.words import interval_text, number
from unveil_evalharness.report.content import Section
from unveil_evalharness.report.tables import Cell, Table, correlation_table, text_row
from unveil_evalharness.statistics.intervals import Interval

__all__ = ["MAX_STUDIES", "correlation_section"]

MAX_STUDIES = 12
"""Sets of checkpoints whose studies are shown in full."""
_MARKS = {True: "yes", False: "no", None: "untested"}


def correlation_section(correlation: Correlation) -> Section:
    """All coefficients, and the study of each main metric folded below."""
    told = [one for one in correlation.strata if one.study is not None and one.verdict is not None]
    chosen = [one for one in told if one.column.main] or told
    folded = [table for one in chosen[:MAX_STUDIES] for table in _study(one)]
    notes = []
    if len(chosen) > MAX_STUDIES:
        notes.append(
            f"Of {len(chosen)} studies {MAX_STUDIES} are shown; `evalharness correlate --details` shows any of them."
        )
    return Section(
        key="correlation",
        title="Correlation",
        paragraphs=tuple(notes),
        tables=(correlation_table(correlation),) if correlation.strata else (),
        folded=tuple(folded),
    )


def _study(stratum: Stratum) -> list[Table]:
    statistics, study, verdict = stratum.statistics, stratum.study, stratum.verdict
    assert statistics is not None
    assert study is not None
    assert verdict is not None
    name = f"{stratum.column.metric} against {stratum.passport_fields.get('objective', stratum.passport[:6])}"
    tables = [_rule(name, verdict), _coefficients(name, statistics)]
    tables += [_parts(name, study.parts)] if study.parts else []
    tables += [_conditions(name, study, stratum.column.x)]
    tables += _choices(name, study)
    tables += [_forecasts(name, study)] if study.forecasts else []
    return [table for table in tables if table.rows]


def _rule(name: str, verdict: Verdict) -> Table:
    rows = tuple(text_row(one.name, _MARKS[one.holds], one.text) for one in verdict.criteria)
    title = f"{name}: why {verdict.code}"
    return Table(title=title, header=("criterion", "holds", "found"), rows=rows, num_text_columns=3)


def _coefficients(name: str, statistics: Statistics) -> Table:
    named: tuple[tuple[str, Estimate, int], ...] = (
        ("Spearman", statistics.spearman, 3),
        ("Pearson", statistics.pearson, 3),
        ("Kendall", statistics.kendall, 3),
        ("per +0.01", statistics.slope, 4),
    )
    rows = []
    for label, one, digits in named:
        plain = None if one.low is None or one.high is None else Interval(low=one.low, high=one.high)
        texts = [_or_dash(interval, digits) for interval in (plain, one.bca, one.grouped)]
        rows.append((Cell(text=label), Cell(text=number(one.value, digits), value=one.value), *text_row(*texts)))
    groups = "" if statistics.num_groups is None else f" ({statistics.num_groups})"
    return Table(
        title=f"{name}: coefficients and their intervals",
        header=("coefficient", "value", "percentile", "BCa", f"whole groups{groups}"),
        rows=tuple(rows),
        notes=(f"n = {statistics.n}; {100 * statistics.confidence:.0f} % intervals.",),
    )


def _or_dash(interval: Interval | None, digits: int) -> str:
    return "–" if interval is None else interval_text(interval, digits)


def _parts(name: str, parts: tuple[Part, ...]) -> Table:
    rows = []
    for part in parts:
        n = Cell(text=str(part.n), value=float(part.n))
        if part.pearson is None or part.spearman is None or part.kendall is None:
            reason = "refused" if part.refusal is None else part.refusal.reason.replace("_", " ")
            rows.append((*text_row(part.kind, part.name), n, *text_row(reason, "–", "–")))
        else:
            cells = (_estimate(part.spearman), _estimate(part.pearson), _estimate(part.kendall))
            rows.append((*text_row(part.kind, part.name), n, *cells))
    header = ("what they share", "group", "n", "Spearman", "Pearson", "Kendall")
    return Table(title=f"{name}: each group by itself", header=header, rows=tuple(rows), num_text_columns=2)


def _estimate(one: Estimate) -> Cell:
    return Cell(text=f"{number(one.value, 3)} {interval_text(one.best)}", value=one.value)


def _conditions(name: str, study: Study, x: str) -> Table:
    """Steps, what is left when size and length are known, offsets between sources, seeds: one fact a row."""
    facts: list[tuple[str, str]] = []
    if study.steps is not None:
        falling, rising = study.steps.falling, study.steps.rising
        facts.append(
            (f"steps to a longer run on which the {x} fell", f"{falling.num_gained} of {falling.num_steps} gained")
        )
        beside = "" if study.steps.p_value is None else f" (Fisher's p = {study.steps.p_value:.2g})"
        facts.append(("steps on which it rose", f"{rising.num_gained} of {rising.num_steps} gained{beside}"))
    if study.within is not None:
        within = study.within.statistics
        text = f"Spearman {_estimate(within.spearman).text}, Pearson {_estimate(within.pearson).text}"
        facts.append((f"within {study.within.num_models} models, their means taken away", text))
    if study.partial is not None:
        text = (
            f"partial Pearson {number(study.partial.pearson, 3)} {interval_text(study.partial.pearson_interval)}, "
            "partial Spearman "
            + (
                "none: nothing is left of the ranks"
                if study.partial.spearman is None
                else number(study.partial.spearman, 3)
            )
        )
        facts.append((f"given {', '.join(study.partial.controls)}", text))
    if study.explained is not None:
        one = study.explained
        text = f"{x} {one.by_x:.3f}; {', '.join(one.controls)} {one.by_controls:.3f}; all {one.by_both:.3f}"
        facts.append(("R²", text))
    for one in study.offsets:
        text = f"{number(one.offset.value, 4)} {interval_text(one.offset.interval, 4)}, n = {one.n}"
        facts.append((f"{x} on {one.source} against {one.reference}, at equal value", text))
    if study.noise is not None:
        noise = study.noise
        text = (
            f"standard deviation {noise.value.standard_deviation:.4g}; values nearer than {noise.value_floor:.4g} may "
            "differ by chance"
        )
        facts.append((f"seeds ({noise.kind})", text))
    rows = tuple(text_row(*fact) for fact in facts)
    title = f"{name}: steps, conditions, offsets, noise"
    return Table(title=title, header=("what", "found"), rows=rows, num_text_columns=2)


def _choices(name: str, study: Study) -> list[Table]:
    if study.choices is None:
        return []
    rows = tuple(
        (*text_row(one.among, one.chosen, one.best), Cell(text=number(one.regret, 4), value=one.regret))
        for one in study.choices.choices
    )
    overall, within = study.choices.overall, study.choices.within_model
    notes = [f"In the right order: {100 * overall.accuracy:.0f} % of {overall.num_pairs:,} pairs."]
    if within is not None:
        notes.append(f"Within a model: {100 * within.accuracy:.0f} % of {within.num_pairs:,} pairs.")
    by_length = study.choices.by_length
    if by_length is not None:
        notes.append(
            f"Of {by_length.num_settings} models and data, taking the last run loses {by_length.last_mean:.3f} on "
            f"average and {by_length.last_worst:.3f} at worst, taking the run of lowest loss "
            f"{by_length.lowest_mean:.3f} and {by_length.lowest_worst:.3f}."
        )
    return [
        Table(
            title=f"{name}: what choosing by it loses",
            header=("choosing among", "takes", "best", "regret"),
            rows=rows,
            num_text_columns=3,
            notes=tuple(notes),
        )
    ]


def _forecasts(name: str, study: Study) -> Table:
    rows = tuple(
        (
            *text_row(one.model, ", ".join(one.known)),
            Cell(text=number(one.mean_absolute_error, 3), value=one.mean_absolute_error),
            Cell(text=number(one.worst_group_bias, 3), value=one.worst_group_bias),
            Cell(text=f"{100 * one.coverage:.0f} % {_share(one.coverage_interval)}", value=one.coverage),
        )
        for one in study.forecasts
    )
    first = study.forecasts[0]
    return Table(
        title=f"{name}: each {first.left_out} forecast from the others",
        header=("forecast by", "knowing", "mean absolute error", "worst bias", "measured coverage"),
        rows=rows,
        num_text_columns=2,
        notes=(
            f"The intervals claim {100 * first.confidence:.0f} %; {first.num_groups} groups were left out in turn.",
        ),
    )


def _share(interval: Interval) -> str:
    return f"[{100 * interval.low:.0f}, {100 * interval.high:.0f}]"
