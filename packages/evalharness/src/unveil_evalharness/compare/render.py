"""A comparison as text."""

from collections.abc import Sequence

from unveil_backbones.terminal import visible

from unveil_evalharness.compare.difference import Contrast
from unveil_evalharness.compare.verdict import Verdict

__all__ = ["p_text", "render", "signed", "text_table"]


def render(
    names: tuple[str, str],
    contrasts: Sequence[Contrast],
    adjusted: Sequence[float],
    verdicts: Sequence[Verdict | None],
    *,
    correction: str,
    confidence: float,
) -> str:
    """One row per metric, then how it was done and what to beware of."""
    level = f"{100 * confidence:g} %"
    with_margin = any(verdicts)
    header = ["Metric", "", "A", "B", "Gain", level, "Effect", "p", f"p ({correction})", "n", "Runs"]
    rows = [header + (["Verdict"] if with_margin else [])]
    for contrast, p_value, verdict in zip(contrasts, adjusted, verdicts, strict=True):
        row = [
            contrast.metric,
            "↑" if contrast.higher_is_better else "↓",
            f"{contrast.before:.4f}",
            f"{contrast.after:.4f}",
            signed(contrast.gain),
            f"[{signed(contrast.low)}, {signed(contrast.high)}]",
            "–" if contrast.effect_size is None else signed(contrast.effect_size, 2),
            p_text(contrast.p_value),
            p_text(p_value),
            str(contrast.n),
            f"{contrast.runs[0]} + {contrast.runs[1]}",
        ]
        rows.append(row + ([_verdict(verdict)] if with_margin else []))
    lines = [f"A: {names[0]}", f"B: {names[1]}", "", *text_table(rows), ""]
    lines.append("Gain is B minus A, turned so that more is better.")
    return "\n".join(lines + _methods(contrasts) + _cautions(contrasts))


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    words = {"ok": "within the margin", "regressed": "worse", "undecided": f"undecided: {verdict.plan.words}"}
    return words[verdict.outcome]


def _methods(contrasts: Sequence[Contrast]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for contrast in contrasts:
        effect = f"; effect: {contrast.effect}" if contrast.effect else ""
        clusters = f"; {contrast.num_clusters} clusters" if contrast.num_clusters < contrast.n else ""
        method = f"interval: {contrast.interval}; test: {contrast.test}{effect}{clusters}"
        groups.setdefault(method, []).append(contrast.metric)
    return [f"- {', '.join(metrics)}: {method}." for method, metrics in groups.items()]


def _cautions(contrasts: Sequence[Contrast]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for contrast in contrasts:
        for caution in contrast.cautions:
            groups.setdefault(caution, []).append(contrast.metric)
    return [f"! {', '.join(metrics)}: {caution}." for caution, metrics in groups.items()]


def signed(value: float, digits: int = 4) -> str:
    """With sign, a real minus."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def p_text(value: float) -> str:
    """Small p-values as a bound."""
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns with a rule under the first row."""
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("─" * width for width in widths), *lines[1:]]
