"""A baseline: what a candidate is measured against, pinned by runs, in a small text file that reviews well in a diff.

The numbers are TOML, sorted; the outcomes of single items lie beside it as compact parquet files that it names by
their SHA-256. It holds every promotion with who, when and why, and no code path but `gate init` and `gate promote`
writes it: a better candidate never moves it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from unveil_backbones.limits import parse_toml

from unveil_evalharness.compare.measured import Measured
from unveil_evalharness.compare.sides import Side
from unveil_evalharness.errors import GateFileError
from unveil_evalharness.gate.ratios import Kind, Ratio
from unveil_evalharness.results import is_finite

__all__ = ["SCHEMA_VERSION", "SHORT", "Baseline", "Promotion", "read_baseline", "samples_folder"]

SCHEMA_VERSION = 1
SHORT = 12
"""Digits of a hash by which the file names checkpoints and outcomes."""

_Value = TypeVar("_Value", str, int, bool)
_WORDS = {str: "text", int: "whole number", bool: "true or false"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """One entry of the history."""

    when: str
    """ISO 8601 in UTC."""
    by: str
    reason: str
    checkpoints: tuple[str, ...]
    """Label and hash of each checkpoint."""
    means: tuple[tuple[str, float], ...]
    """Mean of each metric as pinned then."""
    conditions: tuple[tuple[str, str], ...]
    """Protocol and data of each metric then: means under different ones are different quantities."""

    @property
    def date(self) -> datetime:
        """When, as a time."""
        return datetime.fromisoformat(self.when)


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """What is pinned."""

    path: Path
    measured: tuple[Measured, ...]
    """One per metric, sorted by name."""
    promotions: tuple[Promotion, ...]
    """Oldest first; never empty."""
    ratios: dict[tuple[Kind, str], Ratio] = field(default_factory=dict)

    @property
    def side(self) -> Side:
        """The baseline as one side of a comparison."""
        shas = tuple(dict.fromkeys(sha for one in self.measured for sha in one.checkpoints))
        return Side(name=str(self.path), measured=self.measured, problems=(), checkpoints=shas)

    def age(self, now: datetime) -> int:
        """Whole days since the last promotion; 0 where a clock was set back since."""
        return max(0, (now - self.promotions[-1].date).days)

    def drift(self, metric: str) -> float | None:
        """How far the metric has moved since it was first pinned under today's conditions; None for one entry."""
        last = self.promotions[-1]
        condition = dict(last.conditions).get(metric)
        means = [dict(one.means) for one in self.promotions if dict(one.conditions).get(metric) == condition]
        values = [entry[metric] for entry in means if metric in entry]
        return values[-1] - values[0] if len(values) > 1 else None


def samples_folder(path: Path) -> Path:
    """Where the outcomes of a baseline lie."""
    return path.with_name(f"{path.stem}.samples")


def read_baseline(path: Path) -> Baseline:
    """Reads a baseline and checks the outcomes beside it against their hashes.

    Raises:
        GateFileError: no such file, not a baseline, written by a newer version, or outcomes that were altered.
    """
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GateFileError(f"cannot read the baseline {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise GateFileError(f"{path} is not TOML: {error}; restore it from version control") from error
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise GateFileError(
            f"{path} has schema_version {version}, this unveil-evalharness reads {SCHEMA_VERSION}; "
            "make it with `evalharness gate init`"
        )
    try:
        if not content["promotions"]:
            raise ValueError("it has no promotion, and the first is that by `gate init`")
        return Baseline(
            path=path,
            measured=tuple(_measured(name, entry, content, path) for name, entry in content["metrics"].items()),
            promotions=tuple(_promotion(entry) for entry in content["promotions"]),
            ratios={
                (kind, name): Ratio(name=name, kind=kind, **{key: _number(value) for key, value in entry.items()})
                for kind in ("speed", "memory")
                for name, entry in content.get(kind, {}).items()
            },
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        if isinstance(error, GateFileError):
            raise
        raise GateFileError(
            f"{path} is damaged: {type(error).__name__}: {error}; restore it from version control"
        ) from error


def _measured(name: str, entry: dict[str, Any], content: dict[str, Any], path: Path) -> Measured:
    shas, outcomes, versions = (_texts(content[table], table) for table in ("checkpoints", "outcomes", "versions"))
    values = tuple(_number(value) for value in entry["values"])
    errors = tuple(None if error == "unknown" else _number(error) for error in entry["standard_errors"])
    lists = [entry[column] for column in ("standard_errors", "seeds", "checkpoints", "samples")]
    if not values or any(len(one) != len(values) for one in lists):
        raise ValueError(f"{name} has {len(values)} values, and not as many seeds, checkpoints, outcomes and errors")
    return Measured(
        metric=name,
        task=_typed(entry, "task", str),
        task_version=_typed(entry, "task_version", int),
        suite=_typed(entry, "suite", str),
        protocol=_typed(entry, "protocol", str),
        data_hash=_typed(entry, "data_hash", str),
        limit=None,
        higher_is_better=_typed(entry, "higher_is_better", bool),
        unit=_typed(entry, "unit", str),
        main=_typed(entry, "main", bool),
        n=_typed(entry, "n", int),
        values=values,
        standard_errors=errors,
        seeds=tuple(_typed({"seed": seed}, "seed", int) for seed in entry["seeds"]),
        checkpoints=tuple(shas[short] for short in entry["checkpoints"]),
        samples=tuple(_samples(outcomes[short], path) if short else None for short in entry["samples"]),
        versions=tuple(sorted(versions.items())),
        hardware=_typed(content, "hardware", str),
    )


def _samples(sha: str, path: Path) -> Path:
    file = samples_folder(path) / f"{sha[:SHORT]}.parquet"
    try:
        pinned = not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() == sha
    except OSError as error:
        raise GateFileError(f"cannot read {file}: {error.strerror or error}; restore its permissions") from error
    if not pinned:
        raise GateFileError(f"{file} is not what {path} pinned: its hash differs; restore it from version control")
    return file


def _promotion(entry: dict[str, Any]) -> Promotion:
    when = datetime.fromisoformat(entry["when"])
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return Promotion(
        when=when.isoformat(timespec="seconds"),
        by=_typed(entry, "by", str),
        reason=_typed(entry, "reason", str),
        checkpoints=tuple(_texts(dict(enumerate(entry["checkpoints"])), "checkpoints").values()),
        means=tuple((name, _number(pinned["mean"])) for name, pinned in entry["metrics"].items()),
        conditions=tuple((name, _typed(pinned, "condition", str)) for name, pinned in entry["metrics"].items()),
    )


def _typed(entry: Mapping[str, Any], name: str, kind: type[_Value]) -> _Value:
    """A value of a table; TypeError where it is of another type, as it is after a slip or a merge by hand."""
    value = entry[name]
    if type(value) is not kind or (isinstance(value, int) and not is_finite(value)):
        raise TypeError(f"{name} is {str(value)[:40]!r}, no {_WORDS[kind]}")
    return value


def _texts(table: Mapping[Any, Any], name: str) -> dict[Any, str]:
    return {key: _typed({name: value}, name, str) for key, value in table.items()}


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_finite(value):
        raise TypeError(f"{str(value)[:40]!r} is no number of a measurement")
    return float(value)
