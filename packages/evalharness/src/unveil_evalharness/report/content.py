"""What the report says, in order: answers, results, figures, correlation, details, problems, provenance."""

from collections.abc import Sequence
from dataclasses import dataclass

from unveil_backbones.manifest import Passport

from unveil_evalharness.correlate.correlation import Correlation, Stratum
from unveil_evalharness.report.lookup import Lookup, objective_title
from unveil_evalharness.report.tables import (
    Cell,
    Table,
    correlation_table,
    overview_table,
    problem_table,
    task_table,
)

__all__ = ["Answer", "Content", "build_content"]

_MANY_DIGITS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One sentence about one task, and what limits it."""

    task: str
    text: str
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """The report without figures and without a format."""

    title: str
    answers: tuple[Answer, ...]
    overview: Table
    correlation: Table | None
    tasks: tuple[Table, ...]
    problems: Table | None
    provenance: tuple[Table, ...]


def build_content(lookup: Lookup, correlation: Correlation) -> Content:
    """Everything the report says about these results."""
    measured = {column.task for column in lookup.columns}
    num_checkpoints, num_tasks = len(lookup.checkpoints), len(lookup.tasks)
    return Content(
        title=f"Evaluation of {_count(num_checkpoints, 'checkpoint')} on {_count(num_tasks, 'task')}",
        answers=tuple(answer for task in lookup.tasks for answer in _answers(task, lookup, correlation)),
        overview=overview_table(lookup),
        correlation=correlation_table(correlation) if correlation.strata else None,
        tasks=tuple(task_table(lookup, task) for task in lookup.tasks if task in measured),
        problems=problem_table(lookup),
        provenance=(_checkpoints(lookup), _measurements(lookup), *_passports(lookup), _software(lookup)),
    )


def _answers(task: str, lookup: Lookup, correlation: Correlation) -> list[Answer]:
    strata = [stratum for stratum in correlation.strata if stratum.column.task == task and stratum.column.main]
    if strata:
        return [_stratum_answer(task, stratum, strata) for stratum in strata]
    left_out = [item for item in correlation.left_out if item.metric.partition(".")[0] == task]
    if left_out:
        return [Answer(task=task, text=f"No correlation for {task}: {left_out[0].label}: {left_out[0].reason}.")]
    rows = [row for row in lookup.evidence.rows if row.task == task]
    counts = {status: len({row.checkpoint_sha256 for row in rows if row.status == status}) for status in _STATUS_WORDS}
    parts = [
        f"{words} {_count(counts[status], 'checkpoint')}" for status, words in _STATUS_WORDS.items() if counts[status]
    ]
    reason = next((row.error for row in rows if row.error), "no main metric was recorded")
    return [Answer(task=task, text=f"No result for {task}: {' and '.join(parts) or 'none measured'} ({reason}).")]


_STATUS_WORDS = {"failed": "it failed on", "not_applicable": "it does not apply to"}


def _stratum_answer(task: str, stratum: Stratum, strata: Sequence[Stratum]) -> Answer:
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
    return Answer(task=task, text=lead + stratum.answer, cautions=stratum.cautions)


def _checkpoints(lookup: Lookup) -> Table:
    paths = {row.checkpoint_sha256: row.checkpoint for row in lookup.evidence.rows}
    rows = []
    for sha256 in lookup.checkpoints:
        manifest = lookup.manifest(sha256)
        facts = ("–",) * 5
        if manifest is not None:
            facts = (
                f"{manifest.num_parameters:,}",
                f"{manifest.samples_seen:,}",
                f"{manifest.device_seconds:,.0f}",
                str(manifest.seed),
                "–" if manifest.passport is None else manifest.passport.hash[:6],
            )
        rows.append(_text_row(lookup.labels[sha256], sha256[:_MANY_DIGITS], paths[sha256], *facts))
    return Table(
        title="Checkpoints",
        header=(
            "checkpoint",
            "sha256",
            "path",
            "encoder parameters",
            "samples seen",
            "device-seconds",
            "seed",
            "passport",
        ),
        rows=tuple(rows),
        num_text_columns=3,
    )


def _measurements(lookup: Lookup) -> Table:
    keys = dict.fromkeys(
        (row.task, str(row.task_version), row.suite, row.protocol, row.data_hash or "–", _limit(row.limit))
        for row in lookup.evidence.rows
    )
    return Table(
        title="Protocols and data",
        header=("task", "version", "suite", "protocol fingerprint", "data hash", "limit"),
        rows=tuple(_text_row(*key) for key in keys),
        num_text_columns=6,
        notes=("The fields behind each fingerprint are in protocols/ of the output folder.",),
    )


def _passports(lookup: Lookup) -> list[Table]:
    """What each validation loss depends on; losses in different columns are never put on one axis."""
    passports: dict[str, Passport] = {}
    for sha256 in lookup.checkpoints:
        manifest = lookup.manifest(sha256)
        if manifest is not None and manifest.passport is not None:
            passports[manifest.passport.hash] = manifest.passport
    if not passports:
        return []
    records = [passport.to_json() for passport in passports.values()]
    return [
        Table(
            title="Passports of the validation losses",
            header=("field", *(digest[:6] for digest in passports)),
            rows=tuple(_text_row(name, *(_plain(record[name]) for record in records)) for name in records[0]),
            num_text_columns=1 + len(records),
        )
    ]


def _software(lookup: Lookup) -> Table:
    versions: dict[str, dict[str, None]] = {}
    for row in lookup.evidence.rows:
        for name, version in row.versions.items():
            versions.setdefault(name, {})[version] = None
    hardware = dict.fromkeys(row.hardware for row in lookup.evidence.rows if row.hardware)
    seeds = sorted({row.seed for row in lookup.evidence.rows})
    times = sorted(row.time for row in lookup.evidence.rows if row.time)
    seconds = {
        (row.checkpoint_sha256, row.task, row.protocol, row.seed, row.limit): row.seconds
        for row in lookup.evidence.rows
    }
    facts = [
        ("output folders", ", ".join(lookup.evidence.outputs)),
        ("hardware", "; ".join(hardware) or "–"),
        ("evaluation seeds", ", ".join(map(str, seeds))),
        ("evaluation time", f"{sum(seconds.values()):,.0f} s"),
        ("measured", f"{times[0]} to {times[-1]}" if times else "–"),
        *((name, ", ".join(found)) for name, found in sorted(versions.items())),
    ]
    return Table(
        title="Runs and software",
        header=("what", "value"),
        rows=tuple(_text_row(*fact) for fact in facts),
        num_text_columns=2,
    )


def _text_row(*texts: str) -> tuple[Cell, ...]:
    return tuple(Cell(text=text) for text in texts)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return " × ".join(map(str, value)) if isinstance(value, list) else str(value)


def _limit(limit: int | None) -> str:
    return "all" if limit is None else f"limited to {limit}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
