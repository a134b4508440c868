"""Two sides item by item: tables read once, averaged over runs, and matched by key."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from unveil_evalharness.compare.measured import Measured
from unveil_evalharness.compare.outcomes import (
    MetricFunction,
    Outcomes,
    key_column,
    mean_outcomes,
    metric_function,
    read_samples,
    same_value,
)
from unveil_evalharness.errors import NotComparableError

if TYPE_CHECKING:
    import polars

__all__ = ["PairedItems", "PairedTables", "Tables", "pair"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedItems:
    """Outcomes of the same items on both sides, each the mean over the runs of its side."""

    before: Float[np.ndarray, " n"]
    after: Float[np.ndarray, " n"]
    clusters: np.ndarray | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTables:
    """Tables of the same items on both sides, a table per run, for a metric that is no mean over items."""

    before: tuple["polars.DataFrame", ...]
    after: tuple["polars.DataFrame", ...]
    function: MetricFunction
    name: str
    """What the function calls the metric."""


@dataclass(kw_only=True, slots=True)
class Tables:
    """Tables of outcomes that are read once however many metrics ask for them."""

    known: dict[Path, "polars.DataFrame | None"] = field(default_factory=dict)

    def of(self, one: Measured) -> "list[polars.DataFrame] | str":
        """The table of every run, or why there are none.

        Raises:
            NotComparableError: a file is damaged.
        """
        tables: list[polars.DataFrame] = []
        for path in one.samples:
            if path is not None and path not in self.known:
                self.known[path] = read_samples(path)
            table = None if path is None else self.known[path]
            if table is None:
                return "no outcomes of single items are kept" if path is None else f"{path} is not there"
            tables.append(table)
        return tables


def pair(a: Measured, b: Measured, tables: Tables) -> PairedItems | PairedTables | str:
    """Matches the items of both sides, or says why it cannot be done.

    Raises:
        NotComparableError: the two sides hold different items although their data hashes are equal.
    """
    before, after = tables.of(a), tables.of(b)
    if isinstance(before, str) or isinstance(after, str):
        which = "the first side" if isinstance(before, str) else "the second side"
        return f"{which}: {before if isinstance(before, str) else after}"
    first, second = _outcomes(a, before), _outcomes(b, after)
    if first is not None and second is not None:
        _same_keys(a.metric, first[0].keys, second[0].keys)
        return PairedItems(
            before=np.mean([run.values for run in first], axis=0),
            after=np.mean([run.values for run in second], axis=0),
            clusters=first[0].clusters,
        )
    return _pair_tables(a, b, before, after)


def _outcomes(one: Measured, tables: "list[polars.DataFrame]") -> list[Outcomes] | None:
    """Outcomes of every run, where their mean gives the recorded value."""
    runs: list[Outcomes] = []
    for table, value in zip(tables, one.values, strict=True):
        outcomes = mean_outcomes(table, one.metric)
        if outcomes is None or not same_value(float(outcomes.values.mean()), value):
            return None
        if runs:
            _same_keys(one.metric, runs[0].keys, outcomes.keys)
        runs.append(outcomes)
    return runs


def _same_keys(metric: str, first: np.ndarray, second: np.ndarray) -> None:
    if np.array_equal(first, second):
        return
    only_first, only_second = np.setdiff1d(first, second), np.setdiff1d(second, first)
    example = str((only_first if len(only_first) else only_second)[0])
    raise NotComparableError(
        f"{metric} is not comparable: {len(only_first)} items are on the first side only and {len(only_second)} on the "
        f"second only, such as {example!r}; evaluate both on the same data"
    )


def _pair_tables(
    a: Measured, b: Measured, before: "list[polars.DataFrame]", after: "list[polars.DataFrame]"
) -> PairedTables | str:
    function = metric_function(a.task)
    if function is None:
        return f"{a.metric} does not follow from the outcomes that are kept"
    key = key_column(before[0])
    if key is None or any(key not in table.columns for table in (*before, *after)):
        return "the outcomes have no key to pair them by"
    sorted_before, sorted_after = ([table.sort(key) for table in side] for side in (before, after))
    name = a.metric
    for side, one in ((sorted_before, a), (sorted_after, b)):
        for table, value in zip(side, one.values, strict=True):
            _same_keys(a.metric, sorted_before[0][key].to_numpy(), table[key].to_numpy())
            given = function(table)
            name = a.metric if a.metric in given else "" if a.main and "" in given else None
            if name is None or not same_value(given[name], value):
                return f"the outcomes that are kept do not give the recorded {a.metric}"
    return PairedTables(before=tuple(sorted_before), after=tuple(sorted_after), function=function, name=name)
