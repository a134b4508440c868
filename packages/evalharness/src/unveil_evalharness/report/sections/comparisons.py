"""What `evalharness compare --json` and `evalharness gate --json` found, as sections of the report."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unveil_backbones.limits import parse_json

from unveil_evalharness.correlate.words import number
from unveil_evalharness.errors import ResultsError
from unveil_evalharness.report.content import Answer, Section
from unveil_evalharness.report.tables import Cell, Table, text_row

__all__ = ["comparison_sections"]

_ANSWERS = {
    "ok": ("good", "stays within every margin of"),
    "regressed": ("bad", "is worse than"),
    "undecided": ("warn", "may or may not stay within every margin of"),
    "not_comparable": ("warn", "cannot be compared with"),
}
_HEADER = ("metric", "verdict", "first", "second", "gain", "interval", "p", "n")


def comparison_sections(paths: Sequence[Path]) -> tuple[Section, ...]:
    """One section per file, in the given order.

    Raises:
        ResultsError: a file cannot be read, or is no JSON of `compare` or `gate`.
    """
    return tuple(_section(path, index) for index, path in enumerate(paths, start=1))


def _section(path: Path, index: int) -> Section:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "findings" in content:
            return _gate(content, index)
        if isinstance(content, dict) and "metrics" in content:
            return _compare(content, index)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(
            f"cannot read {path}: {type(error).__name__}: {error}; give a file that `evalharness compare --json` or "
            "`evalharness gate --json` has printed"
        ) from error
    raise ResultsError(
        f"{path} holds neither a comparison nor a gate's answer; give what `evalharness compare --json` or "
        "`evalharness gate --json` has printed"
    )


def _gate(content: Mapping[str, Any], index: int) -> Section:
    tone, words = _ANSWERS[content["status"]]
    rows = []
    for finding in content["findings"]:
        measured = finding.get("difference") or finding.get("contrast")
        name, status = text_row(str(finding["name"]), str(finding["status"]).replace("_", " "))
        rows.append((name, status, *(_numbers(measured, None) if measured else text_row(*["–"] * 6))))
    answer = Answer(
        task="gate",
        text=f"{content['candidate']} {words} {content['baseline']}.",
        cautions=(
            *(f"{one['name']}: {one['words']}" for one in content["findings"] if one["status"] != "ok"),
            *map(str, content["warnings"]),
        ),
        verdict=str(content["status"]).replace("_", " "),
        tone="good" if tone == "good" else "bad" if tone == "bad" else "warn",
    )
    table = Table(title=f"Gate against {content['baseline']}", header=_HEADER, rows=tuple(rows), num_text_columns=2)
    return Section(key=f"gate-{index}", title="Gate", answers=(answer,), tables=(table,))


def _compare(content: Mapping[str, Any], index: int) -> Section:
    rows = []
    for one in content["metrics"]:
        verdict = one.get("verdict")
        outcome = str(verdict["outcome"]) if verdict else "–"
        rows.append((*text_row(str(one["metric"]), outcome), *_numbers(one, one.get("p_adjusted"))))
    table = Table(
        title=f"{content['b']} (second) against {content['a']} (first)",
        header=_HEADER,
        rows=tuple(rows),
        num_text_columns=2,
        notes=(
            "Gain: second minus first, turned so that more is better; p corrected for the number of metrics.",
            *map(str, content.get("not_comparable", ())),
        ),
    )
    return Section(key=f"comparison-{index}", title="Comparison", tables=(table,))


def _numbers(one: Mapping[str, Any], corrected: float | None) -> tuple[Cell, ...]:
    p_value = one["p_value"] if corrected is None else corrected
    interval = f"[{number(one['low'], 4)}, {number(one['high'], 4)}]"
    return (
        _cell(one["before"]),
        _cell(one["after"]),
        _cell(one["gain"], signed=True),
        Cell(text=interval, value=float(one["low"])),
        Cell(text="<0.0001" if p_value < 1e-4 else f"{p_value:.4f}", value=float(p_value)),
        Cell(text=f"{one['n']:,}", value=float(one["n"])),
    )


def _cell(value: float, *, signed: bool = False) -> Cell:
    if not math.isfinite(value):
        return Cell(text="–")
    sign = "+" if signed and value > 0 else ""
    return Cell(text=sign + number(value, 4), value=float(value))
