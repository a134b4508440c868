"""Which metrics of two sides to put side by side, and which cannot be."""

from collections.abc import Sequence

from unveil_evalharness.compare.measured import Measured, check_comparable
from unveil_evalharness.compare.sides import Side
from unveil_evalharness.errors import NotComparableError, UsageError
from unveil_evalharness.parsing import nearest

__all__ = ["choose_metrics", "matching"]


def choose_metrics(a: Side, b: Side, wanted: Sequence[str], *, everything: bool) -> list[str]:
    """Names of the metrics to compare: those named, those of the tasks named, or of all tasks the main one each.

    Raises:
        UsageError: a name is neither a task nor a metric of either side.
    """
    known = {one.metric: one for side in (a, b) for one in side.measured}
    tasks = {one.task for one in known.values()} | {name.split(".", 1)[0] for name, _ in (*a.problems, *b.problems)}
    for name in wanted:
        if name not in known and name not in tasks:
            raise UsageError(f"--tasks: neither side has {name!r}{nearest(name, sorted(tasks | set(known)))}")
    return [
        name
        for name, one in known.items()
        if name in wanted or ((not wanted or one.task in wanted) and (one.main or everything))
    ]


def matching(a: Side, b: Side, metric: str) -> list[tuple[Measured, Measured]]:
    """Pairs of measurements of a metric under equal conditions.

    Raises:
        NotComparableError: one side lacks the metric (with the reason where its task failed), or no conditions are
            equal; names the first field that differs.
    """
    first, second = a.of(metric), b.of(metric)
    for side, own, which in ((a, first, "first"), (b, second, "second")):
        if not own:
            reason = side.problem(metric)
            raise NotComparableError(
                f"{metric} is not comparable: the {which} side ({side.name}) has no value"
                + (f"; its task {reason}" if reason else "; evaluate it there")
            )
    pairs = [(left, right) for left in first for right in second if left.condition == right.condition]
    if not pairs:
        check_comparable(first[-1], second[-1])
    return pairs
