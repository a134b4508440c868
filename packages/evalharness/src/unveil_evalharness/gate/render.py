"""A gate's report as text for a log, Markdown for a job summary, and JSON."""

import dataclasses
import json
import math

from unveil_evalharness.gate.decide import Finding, GateReport
from unveil_evalharness.report.markdown import escape_markdown

__all__ = ["as_json", "as_markdown", "as_text"]

_SIGNS = {"ok": "ok", "regressed": "REGRESSED", "undecided": "undecided", "not_comparable": "NOT COMPARABLE"}
_ANSWERS = {
    "ok": "The candidate stays within every margin.",
    "regressed": "The candidate is worse than the baseline.",
    "undecided": "The data do not decide whether the candidate stays within every margin.",
    "not_comparable": "The candidate cannot be compared with the baseline.",
}


def as_text(report: GateReport) -> str:
    """One line per finding, the power, the warnings, the answer last."""
    lines = [f"baseline:  {report.baseline}", f"candidate: {report.candidate}", ""]
    lines += [f"{_SIGNS[one.status]:14}  {one.name}: {one.words}" for one in report.findings]
    lines += ["", *_power(report)]
    lines += [f"! {warning}" for warning in report.warnings]
    return "\n".join([*lines, "", f"{_ANSWERS[report.status]} (exit {report.exit_code})"])


def as_markdown(report: GateReport) -> str:
    """The answer as a heading, a table, then power and warnings."""
    lines = [
        f"### {_ANSWERS[report.status]}",
        "",
        f"Candidate {escape_markdown(report.candidate)} against {escape_markdown(report.baseline)}.",
        "",
    ]
    lines += ["| | metric | baseline | candidate | gain | interval | margin | power | n | runs |"]
    lines += ["|---|---|--:|--:|--:|---|--:|--:|--:|---|"]
    lines += [_markdown_row(one) for one in report.findings]
    details = [
        f"- **{escape_markdown(one.name)}**: {escape_markdown(one.words)}"
        for one in report.findings
        if one.status != "ok"
    ]
    if details:
        lines += ["", *details]
    lines += ["", *_power(report)]
    lines += ["", *(f"> {escape_markdown(warning)}" for warning in report.warnings)]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_row(one: Finding) -> str:
    sign = _SIGNS[one.status] if one.status == "ok" else f"**{_SIGNS[one.status]}**"
    if one.contrast is None or one.verdict is None:
        cells = ["–"] * 8 if one.status == "not_comparable" else [escape_markdown(one.words), *["–"] * 7]
    else:
        contrast, verdict = one.contrast, one.verdict
        cells = [
            f"{contrast.before:.4f}",
            f"{contrast.after:.4f}",
            f"{contrast.gain:+.4f}",
            f"[{contrast.low:+.4f}, {contrast.high:+.4f}]",
            f"{verdict.margin:.4g}",
            f"{verdict.plan.power:.0%}",
            str(contrast.n),
            f"{contrast.runs[0]} + {contrast.runs[1]}",
        ]
    return "| " + " | ".join([sign, escape_markdown(one.name), *cells]) + " |"


def _power(report: GateReport) -> list[str]:
    """What the data at hand could find."""
    policy = report.policy
    lines = [
        f"Errors allowed: {policy.alpha:.0%} false alarms over all metrics ({policy.multiple_testing}), and "
        f"{policy.alpha:.0%} that a metric passes which is its whole margin worse. Power wanted: {policy.power:.0%}."
    ]
    for one in report.findings:
        if one.verdict is not None:
            plan = one.verdict.plan
            line = (
                f"- {one.name}: an unchanged candidate passes with {plan.power:.0%}; a drop of {plan.detectable:.4f} "
                f"is noticed with {policy.power:.0%}"
            )
            short = plan.power < policy.power and one.status != "undecided"
            lines.append(line + (f"; for the wanted power: {plan.words}" if short else ""))
    return lines


def as_json(report: GateReport) -> str:
    """Everything."""
    findings = []
    for one in report.findings:
        record = dataclasses.asdict(one)
        if one.contrast is not None and math.isinf(one.contrast.degrees_of_freedom):
            record["contrast"]["degrees_of_freedom"] = None
        findings.append(record)
    content = {
        "status": report.status,
        "exit_code": report.exit_code,
        "baseline": report.baseline,
        "candidate": report.candidate,
        "policy": dataclasses.asdict(report.policy),
        "findings": findings,
        "warnings": report.warnings,
    }
    return json.dumps(content, allow_nan=False)
