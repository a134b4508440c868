"""All cells of a run: every checkpoint × task × seed × repeat, in the order in which they are evaluated."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from unveil_backbones.places import is_folder

from unveil_evalharness.cells import Cell
from unveil_evalharness.errors import DataError, UsageError
from unveil_evalharness.fingerprint import fingerprint
from unveil_evalharness.foreign.convert import ForeignOptions
from unveil_evalharness.options import RunOptions, named_protocols
from unveil_evalharness.subjects import Subject, find_subjects
from unveil_evalharness.task import Sized, Task
from unveil_evalharness.tasks import expand

__all__ = ["Grid", "build_grid"]

# A path has lost the second slash of s3://.
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """What a run is about."""

    subjects: list[Subject]
    tasks: list[Task]
    cells: list[Cell]


def build_grid(options: RunOptions, load: Callable[[str], Task]) -> Grid:
    """Finds checkpoints and tasks; nothing is written yet but foreign checkpoints, converted.

    Raises:
        HarnessError: bad input.
    """
    for flag, path in (("--data-root", options.data_root), ("--output-path", options.output_path)):
        if _URL.match(str(path)):
            raise DataError(
                f"{flag} {path} is a URL; tasks read and write folders of this machine: copy or mount what it names"
            )
    if not is_folder(options.data_root):
        raise DataError(f"--data-root {options.data_root} is not a folder; see `evalharness doctor --data-root DIR`")
    tasks = [load(name) for name in expand(options.tasks)]
    foreign = ForeignOptions(
        folder=options.output_path / "foreign",
        format=options.format,
        model_args=options.model_args,
        allow_download=options.allow_download,
    )
    subjects = find_subjects(options.ckpt, foreign)
    return Grid(subjects=subjects, tasks=tasks, cells=list(_cells(options, subjects, tasks)))


def _cells(options: RunOptions, subjects: list[Subject], tasks: list[Task]) -> Iterator[Cell]:
    suites = {task.name: str(options.suite) for task in tasks} | named_protocols(options)
    limits = {task.name: _limit(options, task, suites[task.name]) for task in tasks}
    for subject in subjects:
        for task in tasks:
            protocol = task.protocol(suites[task.name])
            for seed in dict.fromkeys(options.seeds):
                for repeat in range(options.repeats):
                    yield Cell(
                        subject=subject,
                        task=task,
                        suite=suites[task.name],
                        protocol=protocol,
                        fingerprint=fingerprint(task.name, task.version, protocol),
                        seed=seed,
                        limit=limits[task.name],
                        repeat=repeat,
                    )


def _limit(options: RunOptions, task: Task, suite: str) -> int | None:
    """The limit as a number of images; a share is of those that the protocol evaluates."""
    limit = options.limit
    if limit is None or isinstance(limit, int):
        return limit
    if not isinstance(task, Sized):
        raise UsageError(f"--limit {limit}: {task.name} does not say how many images it evaluates; give a whole number")
    return max(1, round(limit * task.num_images(options.data_root, task.protocol(suite))))
