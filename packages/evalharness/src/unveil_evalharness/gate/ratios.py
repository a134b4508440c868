"""Speed and memory as ratios to a reference that was measured in the same run, so that machines drop out.

Read from the JSON files that ``benchmarks/`` writes, or from a list of objects

    {"name": "encoder step / timm", "ratio": 1.21, "quartiles": [1.18, 1.24], "kind": "speed"}

A ratio above 1 means that ours is faster, or smaller. ``kind`` is ``speed`` (when left out) or ``memory``.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scipy import stats
from unveil_backbones.limits import parse_json

from unveil_evalharness.errors import GateFileError
from unveil_evalharness.gate.policy import RatioRule

__all__ = ["Kind", "Ratio", "RatioVerdict", "judge_ratio", "read_ratios"]

Kind = Literal["speed", "memory"]
_TAIL = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """One ratio with what the rounds of its run leave open."""

    name: str
    kind: Kind
    median: float
    low: float
    high: float
    """Bounds of the median over rounds: each is passed with probability 5 % at most, by the sign test's order
    statistics; where only quartiles are known, these."""

    def __post_init__(self) -> None:
        """Refuses what is no ratio."""
        if not (0 < self.low <= self.median <= self.high < math.inf):
            raise GateFileError(
                f"{self.kind} {self.name!r}: a ratio and its bounds must be above 0 and in order, "
                f"got {self.low} ≤ {self.median} ≤ {self.high}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RatioVerdict:
    """The answer on one ratio."""

    outcome: Literal["ok", "regressed", "undecided"]
    words: str


def read_ratios(paths: Iterable[Path]) -> dict[tuple[Kind, str], Ratio]:
    """All ratios of some files by kind and name.

    Raises:
        GateFileError: a file cannot be read or holds no ratios; or a name comes twice.
    """
    found: dict[tuple[Kind, str], Ratio] = {}
    for path in paths:
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
            ratios = list(_from_benchmark(content)) if _is_benchmark(content) else list(_from_list(content))
        except OSError as error:
            raise GateFileError(f"cannot read {path}: {error.strerror or error}") from error
        except (ArithmeticError, ValueError, KeyError, TypeError, IndexError) as error:
            if isinstance(error, GateFileError):
                raise GateFileError(f"{path}: {error}") from error
            raise GateFileError(
                f"{path} is neither a report of benchmarks/ nor a list of objects with name, ratio and quartiles: "
                f"{type(error).__name__}: {error}"
            ) from error
        for ratio in ratios:
            if (ratio.kind, ratio.name) in found:
                raise GateFileError(f"{path}: {ratio.kind} {ratio.name!r} is there twice; give each report once")
            found[ratio.kind, ratio.name] = ratio
    return found


def _is_benchmark(content: Any) -> bool:
    return isinstance(content, dict) and "outcomes" in content


def _from_list(content: Any) -> Iterable[Ratio]:
    for entry in content if isinstance(content, list) else [content]:
        low, high = entry["quartiles"][0], entry["quartiles"][-1]
        kind = entry.get("kind", "speed")
        if kind not in ("speed", "memory"):
            raise GateFileError(f"{entry['name']!r}: kind must be speed or memory, got {kind!r}")
        yield Ratio(name=str(entry["name"]), kind=kind, median=float(entry["ratio"]), low=float(low), high=float(high))


def _from_benchmark(content: Mapping[str, Any]) -> Iterable[Ratio]:
    clock = content["headline"]
    for outcome in content["outcomes"]:
        timings = {timing["name"]: timing for timing in outcome["timings"]}
        ours = timings[outcome["ours"]]
        for name, theirs in timings.items():
            if name == outcome["ours"]:
                continue
            title = f"{outcome['title']} / {name}"
            rounds = [their / our for their, our in zip(theirs[clock], ours[clock], strict=True)]
            low, high = _median_bounds(rounds)
            yield Ratio(name=title, kind="speed", median=statistics.median(rounds), low=low, high=high)
            if theirs["peak_bytes"] and ours["peak_bytes"]:
                value = theirs["peak_bytes"] / ours["peak_bytes"]
                yield Ratio(name=title, kind="memory", median=value, low=value, high=value)


def _median_bounds(values: Sequence[float]) -> tuple[float, float]:
    """Order statistics that the true median passes with probability 5 % at most on either side.

    With fewer than five rounds no two of them do; then the extremes.
    """
    ordered, n = sorted(values), len(values)
    rank = 0
    while stats.binom.cdf(rank, n, 0.5) <= _TAIL:
        rank += 1
    rank = max(rank, 1)
    return ordered[rank - 1], ordered[n - rank]


def judge_ratio(rule: RatioRule, candidate: Ratio, baseline: Ratio | None) -> RatioVerdict:
    """Decides one ratio: against a bar, or against the baseline's ratio.

    Against a baseline it is *ok* when the loss is shown to stay within `slowdown`, *regressed* when there is a loss
    beyond doubt, and undecided otherwise. What differs between two runs of the same code is not in the bounds of
    either, so `slowdown` must leave room for it.

    Raises:
        GateFileError: the rule compares with a baseline that is not there.
    """
    if rule.at_least is not None:
        words = f"{_words(candidate)}, at least {rule.at_least:g} wanted"
        low, high, bar, sure = candidate.low, candidate.high, rule.at_least, rule.at_least
    else:
        if baseline is None:
            raise GateFileError(f"the baseline has no {candidate.kind} {candidate.name!r}; pin it with gate promote")
        low, high = candidate.low / baseline.high, candidate.high / baseline.low
        bar, sure = 1 - (rule.slowdown or 0.0), 1.0
        words = f"{_words(candidate)}, baseline {_words(baseline)}, slowdown tolerated {rule.slowdown:.0%}"
    if low >= bar:
        return RatioVerdict(outcome="ok", words=words)
    if high < sure:
        return RatioVerdict(outcome="regressed", words=words)
    return RatioVerdict(outcome="undecided", words=f"{words}; more rounds on a quieter machine would decide")


def _words(ratio: Ratio) -> str:
    return f"{ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
