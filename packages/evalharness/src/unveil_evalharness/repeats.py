"""How much a number varies when nothing changes: the same checkpoint evaluated again with the same seed (A/A).

Untrained tasks give the same number each time. Training on a GPU adds in an order that differs from run to run, so a
fine-tuned number has a spread of its own; a difference below it says nothing. No torch.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from unveil_evalharness.results import ResultRow, latest, row_key

__all__ = ["Spread", "spreads"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """The values of one measurement over its repeats."""

    row: ResultRow
    """The first repeat."""
    values: tuple[float, ...]
    """In the order of the repeats; at least two."""

    @property
    def width(self) -> float:
        """Largest minus smallest value, in the metric's unit; 0 where the task is deterministic."""
        return max(self.values) - min(self.values)

    @property
    def deviation(self) -> float:
        """Standard deviation over the repeats (n - 1), in the metric's unit."""
        return statistics.stdev(self.values)


def spreads(rows: Iterable[ResultRow]) -> list[Spread]:
    """The A/A spread of every measurement that was repeated (``evalharness run --repeats N``).

    Args:
        rows: rows of a ``results.jsonl``; only the current one of each measurement and repeat counts.
    """
    groups: dict[tuple[object, ...], list[ResultRow]] = defaultdict(list)
    for row in latest(rows, repeats=True):
        if row.value is not None:
            groups[row_key(replace(row, repeat=0))].append(row)
    found = []
    for group in groups.values():
        ordered = sorted(group, key=lambda row: row.repeat)
        values = tuple(row.value for row in ordered if row.value is not None)
        if len(values) > 1:
            found.append(Spread(row=ordered[0], values=values))
    return found
