"""The first thing on the page: one sentence a task on whether its scores follow the validation loss."""

from collections.abc import Sequence

from unveil_evalharness.correlate.correlation import Correlation, Stratum
from unveil_evalharness.report.content import Answer
from unveil_evalharness.report.lookup import Lookup, objective_title
from unveil_evalharness.report.sections.headline import stratum_answer

__all__ = ["MAX_ANSWERS", "answers", "count"]

MAX_ANSWERS = 24
_STATUS_WORDS = {"failed": "it failed on", "not_applicable": "it does not apply to"}


def answers(lookup: Lookup, correlation: Correlation) -> tuple[Answer, ...]:
    """The answers of all tasks, at most `MAX_ANSWERS` and then how many are left out."""
    found = [answer for task in lookup.tasks for answer in _of_task(task, lookup, correlation)]
    if len(found) > MAX_ANSWERS:
        rest = f"{len(found) - MAX_ANSWERS} more sets of checkpoints are in the table of correlations."
        found = [*found[:MAX_ANSWERS], Answer(task="and", text=rest)]
    return tuple(found)


def _of_task(task: str, lookup: Lookup, correlation: Correlation) -> list[Answer]:
    strata = [stratum for stratum in correlation.strata if stratum.column.task == task and stratum.column.main]
    if strata:
        return [_of_stratum(task, stratum, strata) for stratum in strata]
    left_out = [item for item in correlation.left_out if item.metric.partition(".")[0] == task]
    if left_out:
        return [Answer(task=task, text=f"No correlation for {task}: {left_out[0].label}: {left_out[0].reason}.")]
    rows = [row for row in lookup.evidence.rows if row.task == task]
    counts = {status: len({row.checkpoint_sha256 for row in rows if row.status == status}) for status in _STATUS_WORDS}
    parts = [
        f"{words} {count(counts[status], 'checkpoint')}" for status, words in _STATUS_WORDS.items() if counts[status]
    ]
    reason = next((row.error for row in rows if row.error), "no main metric was recorded")
    return [Answer(task=task, text=f"No result for {task}: {' and '.join(parts) or 'none measured'} ({reason}).")]


def _of_stratum(task: str, stratum: Stratum, strata: Sequence[Stratum]) -> Answer:
    """The stratum's own sentence, led by what sets it apart when the task has several strata."""
    parts = []
    if len({other.passport for other in strata}) > 1:
        parts.append(f"losses: {objective_title(stratum, strata)}")
    if len({other.column.limit for other in strata}) > 1:
        parts.append("no limit" if stratum.column.limit is None else f"limited to {stratum.column.limit}")
    if len({other.column.protocol for other in strata}) > 1:
        parts.append(f"protocol {stratum.column.protocol[:6]}")
    if len({other.column.data_hash for other in strata}) > 1:
        parts.append(f"data {stratum.column.data_hash[:6]}")
    lead = f"[{', '.join(parts)}] " if parts else ""
    return stratum_answer(task, stratum, lead=lead)


def count(number: int, noun: str) -> str:
    """``1 task``, ``4 tasks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
