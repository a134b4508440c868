"""Evaluate masked pre-training checkpoints on four downstream tasks and relate the results to the validation loss.

Names are imported when they are first used (PEP 562): reading results loads neither torch nor the tasks. The functions
that share their module's name are imported from it: ``from unveil_evalharness.run import run``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unveil_evalharness.errors import HarnessError
    from unveil_evalharness.results import ResultRow, append_rows, latest, read_rows, to_frame
    from unveil_evalharness.run import RunOptions, RunSummary
    from unveil_evalharness.task import Metric, MetricSpec, Task, TaskContext, TaskResult
    from unveil_evalharness.tasks import TASK_NAMES, load_task

__all__ = [
    "TASK_NAMES",
    "HarnessError",
    "Metric",
    "MetricSpec",
    "ResultRow",
    "RunOptions",
    "RunSummary",
    "Task",
    "TaskContext",
    "TaskResult",
    "append_rows",
    "latest",
    "load_task",
    "read_rows",
    "to_frame",
]

__version__ = "0.1.0"

_HOMES = {
    "HarnessError": "errors",
    "ResultRow": "results",
    "append_rows": "results",
    "latest": "results",
    "read_rows": "results",
    "to_frame": "results",
    "RunOptions": "run",
    "RunSummary": "run",
    "Metric": "task",
    "MetricSpec": "task",
    "Task": "task",
    "TaskContext": "task",
    "TaskResult": "task",
    "TASK_NAMES": "tasks",
    "load_task": "tasks",
}


def __getattr__(name: str) -> Any:
    """Imports the module of a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
