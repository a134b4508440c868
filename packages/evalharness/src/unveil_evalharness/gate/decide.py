"""The gate: every metric and ratio of the policy decided, and one exit code for all.

Exit codes: 0 ok, 1 regressed, 2 undecided, 3 not comparable. A regression that is proven is told first, whatever else
could not be compared; then what cannot be compared; then what is undecided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from unveil_evalharness.compare.correction import adjust
from unveil_evalharness.compare.difference import Contrast, Settings, contrast
from unveil_evalharness.compare.measured import Measured, check_comparable
from unveil_evalharness.compare.pairing import Tables
from unveil_evalharness.compare.select import matching
from unveil_evalharness.compare.sides import Side
from unveil_evalharness.compare.verdict import Verdict, judge
from unveil_evalharness.errors import GateFileError, NotComparableError
from unveil_evalharness.gate.baseline import Baseline
from unveil_evalharness.gate.policy import Margin, Policy, RatioRule
from unveil_evalharness.gate.ratios import Kind, Ratio, judge_ratio
from unveil_evalharness.parsing import nearest

__all__ = ["EXIT_CODES", "Finding", "GateReport", "Status", "gate"]

Status = Literal["ok", "regressed", "undecided", "not_comparable"]
EXIT_CODES: dict[Status, int] = {"ok": 0, "regressed": 1, "undecided": 2, "not_comparable": 3}
_WORST_FIRST: tuple[Status, ...] = ("regressed", "not_comparable", "undecided", "ok")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The answer on one metric or ratio."""

    group: str
    """The task, or ``speed`` or ``memory``."""
    name: str
    status: Status
    words: str
    """Why, in a sentence."""
    contrast: Contrast | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class GateReport:
    """Everything the gate found."""

    baseline: str
    candidate: str
    policy: Policy
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]

    @property
    def status(self) -> Status:
        """The worst finding."""
        return next(status for status in _WORST_FIRST if any(one.status == status for one in self.findings))

    @property
    def exit_code(self) -> int:
        """See the module."""
        return EXIT_CODES[self.status]


def gate(
    baseline: Baseline | Side,
    candidate: Side,
    policy: Policy,
    *,
    ratios: Mapping[tuple[Kind, str], Ratio],
    settings: Settings,
    now: datetime | None = None,
) -> GateReport:
    """Decides whether the candidate is worse than the baseline.

    Args:
        baseline: a pinned one, or another output folder.
        candidate: what is judged.
        policy: margins and error rates.
        ratios: speed and memory of the candidate.
        settings: resamples and their seed.
        now: today, for the age of the baseline.
    """
    side = baseline.side if isinstance(baseline, Baseline) else baseline
    margins, absent = _margins(side, candidate, policy)
    contrasts, findings = _contrasts(side, candidate, margins, policy, settings)
    findings += absent
    findings += _judged(contrasts, margins, policy)
    old = baseline.ratios if isinstance(baseline, Baseline) else {}
    findings += [_ratio_finding("speed", name, rule, ratios, old) for name, rule in policy.speed.items()]
    findings += [_ratio_finding("memory", name, rule, ratios, old) for name, rule in policy.memory.items()]
    warnings = _warnings(baseline, candidate, margins, policy, datetime.now(UTC) if now is None else now)
    return GateReport(
        baseline=side.name,
        candidate=candidate.name,
        policy=policy,
        findings=tuple(sorted(findings, key=lambda one: (one.group in ("speed", "memory"), one.group, one.name))),
        warnings=tuple(warnings),
    )


def _margins(side: Side, candidate: Side, policy: Policy) -> tuple[dict[str, Margin], list[Finding]]:
    """The margin of every gated metric, and findings on what no side can answer for."""
    mains = [one.metric for one in side.measured if one.main]
    margins = dict.fromkeys(mains, policy.default) if policy.default else {}
    margins |= policy.metrics
    absent = []
    for task in policy.required_tasks:
        if not any(name.split(".", 1)[0] == task for name in margins):
            words = f"the policy requires {task}, of which no metric is in the baseline and in the policy"
            absent.append(Finding(group=task, name=task, status="not_comparable", words=words))
    return {name: margin for name, margin in margins.items() if margin is not None}, absent


def _contrasts(
    side: Side, candidate: Side, margins: Mapping[str, Margin], policy: Policy, settings: Settings
) -> tuple[list[Contrast], list[Finding]]:
    contrasts: list[Contrast] = []
    refused: list[Finding] = []
    tables = Tables()
    for metric in sorted(margins):
        try:
            for before, after in _whole(matching(side, candidate, metric)):
                if len(before.values) < policy.min_runs:
                    raise NotComparableError(
                        f"{metric}: the baseline is pinned by {len(before.values)} run(s), the policy wants "
                        f"{policy.min_runs}; pin it with more --seeds"
                    )
                contrasts.append(contrast(before, after, settings=settings, tables=tables))
        except NotComparableError as error:
            group, known = metric.split(".", 1)[0], sorted({*side.metrics, *candidate.metrics})
            hint = "" if metric in known or not known else nearest(metric, known)
            refused.append(Finding(group=group, name=metric, status="not_comparable", words=f"{error}{hint}"))
    return contrasts, refused


def _whole(pairs: Sequence[tuple[Measured, Measured]]) -> list[tuple[Measured, Measured]]:
    """Without what was measured with ``--limit``, even where it was on both sides."""
    whole = [pair for pair in pairs if pair[0].limit is None]
    if not whole:
        before, after = pairs[0]
        check_comparable(before, after)
        raise NotComparableError(
            f"{before.metric} is not comparable: both sides were made with --limit {before.limit}, which is fit for a "
            "look only; evaluate without it"
        )
    return whole


def _judged(contrasts: Sequence[Contrast], margins: Mapping[str, Margin], policy: Policy) -> list[Finding]:
    corrected = adjust([one.p_worse for one in contrasts], policy.multiple_testing)
    findings = []
    for one, p_worse in zip(contrasts, corrected, strict=True):
        margin = margins[one.metric].of(one.before)
        if margin <= 0:
            words = "the margin is relative to a baseline of 0; give an absolute one"
            findings.append(Finding(group=one.task, name=one.metric, status="not_comparable", words=words))
            continue
        verdict = judge(one, margin=margin, alpha=policy.alpha, power=policy.power, p_worse=float(p_worse))
        findings.append(
            Finding(
                group=one.task,
                name=one.metric,
                status=verdict.outcome,
                words=_words(one, verdict, policy),
                contrast=one,
                verdict=verdict,
            )
        )
    return findings


def _words(one: Contrast, verdict: Verdict, policy: Policy) -> str:
    level = f"{100 * (1 - policy.alpha):g} %"
    change = f"{one.before:.4f} to {one.after:.4f}, a gain of {one.gain:+.4f}"
    bound = f"at least {verdict.lower:+.4f} with {level} confidence, margin {verdict.margin:.4g}"
    match verdict.outcome:
        case "ok":
            text = f"{change}; {bound}"
        case "regressed":
            text = f"{change}, worse beyond doubt (p = {verdict.p_worse:.2g}); {bound}"
        case "undecided":
            text = f"{change}; {bound}; {verdict.plan.words} would decide"
    return text if one.paired else f"{text}; UNPAIRED: {one.why_unpaired}"


def _ratio_finding(
    kind: Kind,
    name: str,
    rule: RatioRule,
    ratios: Mapping[tuple[Kind, str], Ratio],
    old: Mapping[tuple[Kind, str], Ratio],
) -> Finding:
    candidate = ratios.get((kind, name))
    if candidate is None:
        known = sorted(other for of, other in ratios if of == kind)
        where = nearest(name, known) if known else "; give the report with --ratios"
        words = f"the candidate has no {kind} {name!r}{where}"
        return Finding(group=kind, name=name, status="not_comparable", words=words)
    try:
        verdict = judge_ratio(rule, candidate, old.get((kind, name)))
    except GateFileError as error:
        return Finding(group=kind, name=name, status="not_comparable", words=str(error))
    return Finding(group=kind, name=name, status=verdict.outcome, words=verdict.words)


def _warnings(
    baseline: Baseline | Side, candidate: Side, margins: Mapping[str, Margin], policy: Policy, now: datetime
) -> list[str]:
    side = baseline.side if isinstance(baseline, Baseline) else baseline
    warnings = _conditions(side, candidate, margins)
    if set(side.checkpoints) & set(candidate.checkpoints):
        warnings.append("the candidate is the baseline's own checkpoint: an A/A run, whose differences are noise")
    if not isinstance(baseline, Baseline):
        warnings.append("the baseline is an output folder and not a pinned file; pin it with `evalharness gate init`")
        return warnings
    age = baseline.age(now)
    if age > policy.stale_after:
        warnings.append(
            f"the baseline is stale: promoted {age} days ago, more than {policy.stale_after}; look whether it still "
            "stands for what is shipped, then `evalharness gate promote`"
        )
    for one in baseline.measured:
        drift, margin = baseline.drift(one.metric), margins.get(one.metric)
        worse = None if drift is None else -drift if one.higher_is_better else drift
        if worse is not None and margin is not None and worse > margin.of(one.mean):
            warnings.append(
                f"{one.metric}: promotions have lost {worse:.4f} since the baseline was first pinned, more than the "
                f"margin {margin.of(one.mean):.4g}, in steps that each may have passed"
            )
    return warnings


def _conditions(side: Side, candidate: Side, margins: Mapping[str, Margin]) -> list[str]:
    """Versions and hardware that differ: allowed, but the first thing to look at."""
    for metric in sorted(margins):
        for before in side.of(metric)[:1]:
            for after in candidate.of(metric)[:1]:
                old, new = dict(before.versions), dict(after.versions)
                changed = [
                    f"{name} {old.get(name, 'absent')} → {new.get(name, 'absent')}"
                    for name in sorted({*old, *new})
                    if old.get(name) != new.get(name)
                ]
                warnings = [f"versions differ: {', '.join(changed)}"] if changed else []
                if before.hardware != after.hardware:
                    warnings.append(f"hardware differs: {before.hardware} → {after.hardware}")
                return warnings
    return []
