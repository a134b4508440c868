"""``evalharness ls``: what can be evaluated, how long it takes, and whether this machine has what it needs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tyro.conf import Positional

from unveil_evalharness.errors import DataError, UsageError, one_line
from unveil_evalharness.fingerprint import fingerprint, protocol_fields
from unveil_evalharness.parsing import nearest
from unveil_evalharness.published_sizes import PUBLISHED_SIZES
from unveil_evalharness.task import SUITES, Sized, Suite, Task
from unveil_evalharness.tasks import TASK_NAMES, expand, load_task

__all__ = ["ListOptions", "describe"]

LISTS = ("tasks", "suites", "protocols", "metrics")


@dataclass(frozen=True, kw_only=True, slots=True)
class ListOptions:
    """List tasks, suites, protocols with all their constants, or metrics."""

    what: Positional[str] = "tasks"
    """What to list: tasks, suites, protocols or metrics."""
    tasks: tuple[str, ...] = TASK_NAMES
    """Only these tasks, separated by commas; groups and tasks of your own (package.module:ClassName), too."""
    suite: Suite | None = None
    """protocols: only those of this suite."""
    data_root: Path | None = None
    """Also say whether each task's data is there, and how large it is."""
    json: bool = False
    """Print JSON instead of a table."""

    def __post_init__(self) -> None:
        """Refuses what cannot be listed."""
        if self.what not in LISTS:
            raise UsageError(f"cannot list {self.what!r}{nearest(self.what, LISTS)}")


def describe(
    what: str,
    options: ListOptions,
    *,
    names: Sequence[str] | None = None,
    load: Callable[[str], Task] = load_task,
) -> str:
    """The listing as text: an aligned table, or JSON; protocols as blocks of constants.

    Raises:
        UnknownTaskError: a task is unknown.
    """
    tasks = [load(name) for name in (expand(options.tasks) if names is None else names)]
    match what:
        case "protocols":
            return _protocols(tasks, SUITES if options.suite is None else (options.suite,), as_json=options.json)
        case "tasks":
            records = [_task_record(task, options.data_root) for task in tasks]
        case "suites":
            records = [_suite_record(task, suite) for suite in SUITES for task in tasks]
        case _:
            records = [
                {
                    "metric": spec.name,
                    "main": "main" if spec.main else "",
                    "better": "higher" if spec.higher_is_better else "lower",
                    "unit": spec.unit,
                }
                for task in tasks
                for spec in task.metrics
            ]
    return json.dumps(records) if options.json else _table(records)


def _task_record(task: Task, data_root: Path | None) -> dict[str, str]:
    missing = [name for name in task.requires if find_spec(name) is None]
    record = {
        "task": task.name,
        "version": str(task.version),
        "main metric": next(spec.name for spec in task.metrics if spec.main),
        "published size": PUBLISHED_SIZES.get(task.name, "not known"),
        "quick takes": task.expected_time("quick"),
        "full takes": task.expected_time("full"),
        "dependencies": f"missing: {', '.join(missing)}" if missing else "present",
        "what": task.description,
    }
    if data_root is not None:
        record["data"] = _data_state(task, data_root)
    return record


def _data_state(task: Task, data_root: Path) -> str:
    try:
        found = f"present ({task.data_hash(data_root)})"
        if isinstance(task, Sized):
            found += f", {task.num_images(data_root, task.protocol('full')):,} evaluation images"
        return found
    except (DataError, OSError) as error:
        return f"missing: {one_line(error)}"


def _suite_record(task: Task, suite: str) -> dict[str, str]:
    return {
        "suite": suite,
        "task": task.name,
        "protocol": fingerprint(task.name, task.version, task.protocol(suite)),
        "takes": task.expected_time(suite),
    }


def _protocols(tasks: Sequence[Task], suites: Sequence[Suite], *, as_json: bool) -> str:
    """Every constant of every protocol, under the fingerprint that numbers made with it carry."""
    records = [
        {
            "task": task.name,
            "version": task.version,
            "suite": suite,
            "fingerprint": fingerprint(task.name, task.version, task.protocol(suite)),
            "constants": protocol_fields(task.protocol(suite)),
        }
        for task in tasks
        for suite in suites
    ]
    if as_json:
        return json.dumps(records)
    blocks = []
    for record in records:
        constants = record["constants"]
        width = max(map(len, constants), default=0)
        head = f"{record['task']} version {record['version']}, suite {record['suite']}: {record['fingerprint']}"
        blocks.append("\n".join([head, *(f"  {name:{width}}  {_said(value)}" for name, value in constants.items())]))
    return "\n\n".join(blocks)


def _said(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _table(records: Sequence[dict[str, str]]) -> str:
    columns = list(records[0])
    lines = [columns, *([record[column] for column in columns] for record in records)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
