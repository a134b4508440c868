"""One side of a comparison: an output folder, or one checkpoint of several in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unveil_backbones.places import is_file

from unveil_evalharness.compare.measured import Measured, gather
from unveil_evalharness.errors import UsageError
from unveil_evalharness.results import ResultRow, latest, read_rows

__all__ = ["Side", "read_side", "read_sides"]

_SHORTEST_SHA = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """Everything one side measured."""

    name: str
    """For people: the checkpoint's label, or what was given."""
    measured: tuple[Measured, ...]
    problems: tuple[tuple[str, str], ...]
    """Metric and reason of each task that failed or does not apply."""
    checkpoints: tuple[str, ...]
    """SHA-256 of each checkpoint."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all metrics that were measured, each once."""
        return tuple(dict.fromkeys(one.metric for one in self.measured))

    def of(self, metric: str) -> list[Measured]:
        """The metric under each condition it was measured."""
        return [one for one in self.measured if one.metric == metric]

    def problem(self, metric: str) -> str | None:
        """Why a metric of a task is absent: the failure of the task, where it left one."""
        task = metric.split(".", 1)[0]
        return next((reason for name, reason in self.problems if name.split(".", 1)[0] == task), None)


def read_side(text: str) -> Side:
    """Reads ``FOLDER`` or ``FOLDER:CHECKPOINT``; the checkpoint is a label, a part of one, or the start of its hash.

    Raises:
        UsageError: no such folder or checkpoint, or several that may be meant; lists them.
        ResultsError: the result file cannot be read.
    """
    folder, selector = _split(text)
    rows = latest(read_rows(folder / "results.jsonl"))
    if not rows:
        raise UsageError(f"{folder} holds no results; give an output folder of `evalharness run`")
    chosen = _choose(rows, selector, text)
    own = [row for row in rows if row.checkpoint_sha256 == chosen.checkpoint_sha256]
    return Side(
        name=chosen.label or text,
        measured=tuple(gather(own, folder)),
        problems=tuple((row.metric, f"{row.status.replace('_', ' ')}: {row.error}") for row in own if _open(row)),
        checkpoints=(chosen.checkpoint_sha256,),
    )


def read_sides(texts: Sequence[str]) -> Side:
    """Several checkpoints as one side: the same pre-training done anew, each a run of its own.

    Raises:
        UsageError: see `read_side`, or nothing was given.
        ResultsError: see `read_side`.
    """
    if not texts:
        raise UsageError("no output folder was given; give FOLDER, or FOLDER:CHECKPOINT")
    sides = [read_side(text) for text in texts]
    if len(sides) == 1:
        return sides[0]
    groups: dict[tuple[object, ...], list[Measured]] = {}
    for side in sides:
        for one in side.measured:
            groups.setdefault((one.metric, *one.condition), []).append(one)
    return Side(
        name=", ".join(dict.fromkeys(side.name for side in sides)),
        measured=tuple(_together(group) for group in groups.values()),
        problems=tuple(problem for side in sides for problem in side.problems),
        checkpoints=tuple(dict.fromkeys(sha for side in sides for sha in side.checkpoints)),
    )


def _together(group: Sequence[Measured]) -> Measured:
    from dataclasses import replace

    return replace(
        group[0],
        values=tuple(value for one in group for value in one.values),
        standard_errors=tuple(error for one in group for error in one.standard_errors),
        seeds=tuple(seed for one in group for seed in one.seeds),
        checkpoints=tuple(sha for one in group for sha in one.checkpoints),
        samples=tuple(path for one in group for path in one.samples),
    )


def _open(row: ResultRow) -> bool:
    return row.status != "ok"


def _split(text: str) -> tuple[Path, str]:
    """A folder whose name holds a colon is taken as it is."""
    if is_file(Path(text) / "results.jsonl") or ":" not in text:
        folder, selector = text, ""
    else:
        folder, _, selector = text.rpartition(":")
    if not is_file(Path(folder) / "results.jsonl"):
        raise UsageError(f"{folder} is not an output folder of `evalharness run`: it has no results.jsonl")
    return Path(folder), selector


def _choose(rows: Sequence[ResultRow], selector: str, text: str) -> ResultRow:
    by_sha = {row.checkpoint_sha256: row for row in rows}
    if not selector:
        matches = list(by_sha.values())
    else:
        tests = (
            lambda row: len(selector) >= _SHORTEST_SHA and row.checkpoint_sha256.startswith(selector),
            lambda row: row.label == selector,
            lambda row: selector in row.label or selector in row.checkpoint,
        )
        matches = next((found for test in tests if (found := [row for row in by_sha.values() if test(row)])), [])
    if len(matches) == 1:
        return matches[0]
    names = "; ".join(f"{row.label} ({row.checkpoint_sha256[:12]})" for row in (matches or by_sha.values()))
    if not matches:
        raise UsageError(f"{text}: no checkpoint is called {selector!r}; there are {names}")
    raise UsageError(f"{text} holds {len(matches)} checkpoints; add :LABEL or :HASH of one of {names}")
