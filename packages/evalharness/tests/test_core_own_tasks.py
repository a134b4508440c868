"""Tasks by name and by import path; what is no task is refused with what to do."""

import sys

import pytest
from unveil_evalharness.errors import UnknownTaskError
from unveil_evalharness.task import SUITES, Task
from unveil_evalharness.tasks import TASK_NAMES, TASKS, load_task

SOURCE = """
class NoTask:
    name = "no_task"

class NeedsMore:
    def __init__(self, wanted):
        self.wanted = wanted

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module on the path; gone afterwards."""
    (tmp_path / "own_tasks.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_tasks"
    sys.modules.pop("own_tasks", None)


@pytest.mark.mm
@pytest.mark.parametrize("name", TASK_NAMES)
def test_every_name_is_a_task_with_one_main_metric_and_all_suites(name):
    task = load_task(name)
    assert isinstance(task, Task)
    assert task.name == name
    assert [spec.main for spec in task.metrics].count(True) == 1
    for suite in SUITES:
        assert task.protocol(suite) == task.protocol(suite)
        assert task.expected_time(suite)


def test_an_import_path_is_a_task():
    assert load_task(TASKS["knn"]).name == "knn"
    assert load_task("toy_task:ToyTask").name == "toy"


def test_an_unknown_name_says_what_is_near_and_how_to_bring_a_task():
    with pytest.raises(UnknownTaskError, match=r"'imagenet'; did you mean imagenet_ft.*package\.module:Class"):
        load_task("imagenet")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "absent_package.task:Task",
            r"cannot import 'absent_package\.task' .*installed, or on PYTHONPATH",
        ),
        ("own_tasks:Absent", "own_tasks has no class 'Absent'"),
        ("own_tasks:number", "own_tasks has no class 'number'"),
        ("own_tasks:NoTask", "is not a task; it lacks data_hash, description"),
        ("own_tasks:NeedsMore", "cannot be made without arguments"),
        (":Task", "cannot import ''"),
    ],
)
def test_what_is_no_task_is_refused(own, path, message):
    with pytest.raises(UnknownTaskError, match=message):
        load_task(path)
