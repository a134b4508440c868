"""How long a run still takes, from what its tasks took before on the same hardware."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from unveil_evalharness.cells import Cell, is_finished
from unveil_evalharness.evaluate import Session
from unveil_evalharness.results import ResultRow

__all__ = ["in_words", "remaining_words"]


def remaining_words(cells: Sequence[Cell], rows: Sequence[ResultRow], session: Session) -> str:
    """``"about 14 min left for 3 tasks"``; empty where nothing is known or nothing is left.

    Args:
        cells: cells that are still to come; the finished ones among them take no time.
        rows: all rows so far, which say what each task and protocol took.
        session: whose hardware counts.
    """
    seconds = _seconds_by_protocol(rows, session.hardware)
    left = [
        cell
        for cell in cells
        if cell.task.not_applicable(cell.subject.manifest) is None
        and not is_finished(cell, rows, session.data_hash_or_empty(cell.task))
    ]
    known = [seconds[cell.fingerprint] for cell in left if cell.fingerprint in seconds]
    if not known:
        return ""
    unknown = len(left) - len(known)
    beside = f", beside {unknown} that nothing is known of" if unknown else ""
    return f"about {in_words(sum(known))} left for {len(known)} task{'s' if len(known) > 1 else ''}{beside}"


def in_words(seconds: float) -> str:
    """``"40 s"``, ``"14 min"``, ``"3.5 h"``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _seconds_by_protocol(rows: Iterable[ResultRow], hardware: str) -> dict[str, float]:
    """Mean seconds of a finished cell of each protocol."""
    measured: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.main and row.status == "ok" and row.hardware == hardware:
            measured[row.protocol].append(row.seconds)
    return {protocol: fmean(values) for protocol, values in measured.items()}
