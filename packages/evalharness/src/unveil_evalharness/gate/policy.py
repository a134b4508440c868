"""The policy file: what is gated, with which margins and error rates. TOML; unknown keys are refused.

```toml
alpha = 0.05
required_tasks = ["imagenet_ft"]

[default]                       # the main metric of every task of the baseline
absolute = 0.01

[metrics."zs_retrieval.text_recall@1"]
relative = 0.05

[speed."encoder step / timm"]
slowdown = 0.1
```
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from unveil_backbones.limits import parse_toml

from unveil_evalharness.compare.correction import RULES, Rule
from unveil_evalharness.errors import GateFileError
from unveil_evalharness.parsing import nearest

__all__ = ["Margin", "Policy", "RatioRule", "parse_policy", "read_policy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Margin:
    """The tolerated loss of a metric; exactly one of the two."""

    absolute: float | None = None
    """In the metric's unit: 0.01 is one point of a fraction."""
    relative: float | None = None
    """As a share of the baseline's mean."""

    def __post_init__(self) -> None:
        """Refuses both, neither, and what no data can prove."""
        given = [value for value in (self.absolute, self.relative) if value is not None]
        if len(given) != 1:
            raise GateFileError("a margin needs either absolute or relative, and not both")
        if not 0 < given[0] < 1e9:
            raise GateFileError(f"a margin must be above 0, got {given[0]}; no data prove a difference of exactly 0")

    def of(self, mean: float) -> float:
        """The margin in the metric's unit for a baseline with this mean."""
        return self.absolute if self.absolute is not None else (self.relative or 0.0) * abs(mean)


@dataclass(frozen=True, kw_only=True, slots=True)
class RatioRule:
    """What is asked of a ratio to a reference measured in the same run; above 1, ours is faster or smaller."""

    at_least: float | None = None
    """The ratio itself; needs no baseline."""
    slowdown: float | None = None
    """Tolerated loss against the baseline's ratio, as a share of it."""

    def __post_init__(self) -> None:
        """Refuses both, neither, and impossible values."""
        if (self.at_least is None) == (self.slowdown is None):
            raise GateFileError("a rule for a ratio needs either at_least or slowdown, and not both")
        if self.at_least is not None and not self.at_least > 0:
            raise GateFileError(f"at_least must be above 0, got {self.at_least}")
        if self.slowdown is not None and not 0 < self.slowdown < 1:
            raise GateFileError(f"slowdown must be between 0 and 1, got {self.slowdown}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Everything a gate is asked to hold."""

    alpha: float = 0.05
    """Chance that an unchanged candidate is called regressed, over all metrics together; also the chance that one which
    is a whole margin worse in a metric passes there."""
    power: float = 0.8
    """Wanted chance of a decision; where the data have less, the gate says so and what would give it."""
    multiple_testing: Rule = "holm"
    """How regressions are corrected for the number of metrics: holm, bh or none. Passing needs no correction, since
    every metric must pass."""
    stale_after: int = 90
    """Days after which a baseline draws a warning."""
    min_runs: int = 1
    """Fewest runs (seeds) that may pin a baseline."""
    required_tasks: tuple[str, ...] = ()
    """Tasks whose main metric must be on both sides."""
    default: Margin | None = None
    """Margin of the main metrics of all tasks of the baseline that `metrics` does not name."""
    metrics: Mapping[str, Margin] = field(default_factory=dict)
    """Margins by metric."""
    speed: Mapping[str, RatioRule] = field(default_factory=dict)
    """Rules for ratios of time by name."""
    memory: Mapping[str, RatioRule] = field(default_factory=dict)
    """Rules for ratios of memory by name."""

    def __post_init__(self) -> None:
        """Refuses values no policy can have."""
        for name, low, high in (("alpha", 0.0, 0.5), ("power", 0.5, 1.0)):
            value = getattr(self, name)
            if not low < value < high:
                raise GateFileError(f"{name} must be between {low:g} and {high:g}, got {value}")
        for name in ("stale_after", "min_runs"):
            if getattr(self, name) < 1:
                raise GateFileError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (self.default or self.metrics or self.required_tasks or self.speed or self.memory):
            raise GateFileError(
                "the policy gates nothing; give [default], [metrics.'TASK.METRIC'], [speed.'NAME'] or [memory.'NAME']"
            )
        if self.required_tasks and not (self.default or self.metrics):
            raise GateFileError('required_tasks needs a margin: give [default] or [metrics."TASK.METRIC"]')


def read_policy(path: Path) -> Policy:
    """Reads a policy file.

    Raises:
        GateFileError: no such file, not TOML, an unknown key (with the nearest known one), or a value of another type.
    """
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GateFileError(f"cannot read the policy {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise GateFileError(f"{path} is not TOML: {error}") from error
    return parse_policy(content, str(path))


def parse_policy(content: Mapping[str, Any], where: str) -> Policy:
    """A policy from the values of its file.

    Raises:
        GateFileError: see `read_policy`.
    """
    values = _checked(Policy, content, where)
    if values.get("multiple_testing", "holm") not in RULES:
        raise GateFileError(
            f"{where}: multiple_testing {values['multiple_testing']!r} is unknown"
            + nearest(str(values["multiple_testing"]), RULES)
        )
    for name, kind in (("metrics", Margin), ("speed", RatioRule), ("memory", RatioRule)):
        if name in values:
            values[name] = {key: _build(kind, part, f"{where}: {name}.{key}") for key, part in values[name].items()}
    if "default" in values:
        values["default"] = _build(Margin, values["default"], f"{where}: default")
    if "required_tasks" in values:
        values["required_tasks"] = tuple(values["required_tasks"])
    return _named(Policy, values, where)


def _build(kind: type[Any], content: Any, where: str) -> Any:
    if not isinstance(content, dict):
        raise GateFileError(f"{where} must be a table, got {content!r}")
    return _named(kind, _checked(kind, content, where), where)


def _named(kind: Callable[..., Any], values: Mapping[str, Any], where: str) -> Any:
    """Builds a dataclass; its complaints are introduced by the file."""
    try:
        return kind(**values)
    except GateFileError as error:
        raise GateFileError(f"{where}: {error}") from error


def _checked(kind: type[Any], content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a table, whole numbers as floats where a field wants those.

    Raises:
        GateFileError: see `read_policy`.
    """
    known = {one.name: one.type for one in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in known:
            raise GateFileError(f"{where}: unknown key {name!r}{nearest(name, sorted(known))}")
        allowed, words = _allowed(known[name])
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise GateFileError(f"{where}: {name} must be {words}, got {value!r}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise GateFileError(f"{where}: {name} must be a list of text, got {value!r}")
        values[name] = value
        if float in allowed and isinstance(value, int):
            try:
                values[name] = float(value)
            except OverflowError as error:
                raise GateFileError(f"{where}: {name} is larger than any number of a computer") from error
    return values


def _allowed(hint: Any) -> tuple[tuple[type, ...], str]:
    """The TOML types a field may have, and how to say so."""
    members = hint.__args__ if isinstance(hint, types.UnionType) else (hint,)
    if float in members:
        return (int, float), "a number"
    if int in members:
        return (int,), "a whole number"
    if hint is Rule:
        return (str,), "text"
    origin = cast(Any, members[0])
    if getattr(origin, "__origin__", None) is tuple:
        return (list,), "a list of text"
    return (dict,), "a table"
