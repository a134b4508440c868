"""The downstream tasks by name, and tasks of the user's own by import path; each is imported when it is asked for."""

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import MappingProxyType

from unveil_evalharness.errors import UnknownTaskError, one_line
from unveil_evalharness.task import Task

__all__ = ["DEFAULT_TASKS", "TASKS", "TASK_GROUPS", "TASK_NAMES", "expand", "load_task"]

_HERE = "unveil_evalharness.tasks"

TASKS: Mapping[str, str] = MappingProxyType(
    {
        "imagenet_ft": f"{_HERE}.imagenet_ft.task:ImagenetFineTune",
        "linear_probe": f"{_HERE}.linear_probe.task:LinearProbe",
        "knn": f"{_HERE}.knn.task:NearestNeighbours",
        "coco_det": f"{_HERE}.coco_det.task:CocoDetection",
        "ade20k_seg": f"{_HERE}.ade20k_seg.task:Ade20kSegmentation",
        "zs_retrieval": f"{_HERE}.zs_retrieval.task:ZeroShotRetrieval",
        "zs_retrieval_coco": f"{_HERE}.zs_retrieval.task:CocoRetrieval",
        "zs_retrieval_flickr30k": f"{_HERE}.zs_retrieval.task:FlickrRetrieval",
        "zs_classification": f"{_HERE}.zs_classification.task:ZeroShotClassification",
        "zs_classification_80": f"{_HERE}.zs_classification.task:ZeroShotClassification80",
        "zs_imagenet_v2": f"{_HERE}.zs_classification.task:ZeroShotImagenetV2",
        "zs_imagenet_a": f"{_HERE}.zs_classification.task:ZeroShotImagenetA",
        "zs_imagenet_r": f"{_HERE}.zs_classification.task:ZeroShotImagenetR",
        "zs_imagenet_sketch": f"{_HERE}.zs_classification.task:ZeroShotImagenetSketch",
        "zs_objectnet": f"{_HERE}.zs_classification.task:ZeroShotObjectnet",
        "val_loss": f"{_HERE}.val_loss.task:ValidationLoss",
    }
)
"""Where the class of each task is."""

TASK_NAMES: tuple[str, ...] = tuple(TASKS)

TASK_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "retrieval": ("zs_retrieval_coco", "zs_retrieval_flickr30k"),
        "robustness": (
            "zs_classification",
            "zs_imagenet_v2",
            "zs_imagenet_a",
            "zs_imagenet_r",
            "zs_imagenet_sketch",
            "zs_objectnet",
        ),
    }
)
"""Names that stand for several tasks, each over a data set of its own."""

DEFAULT_TASKS: tuple[str, ...] = ("imagenet_ft", "coco_det", "ade20k_seg", "zs_retrieval")
"""What is evaluated when no task is named: the two papers' four."""


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Names with every group's members in its place, each once."""
    return tuple(dict.fromkeys(member for name in names for member in TASK_GROUPS.get(name, (name,))))


def load_task(name: str) -> Task:
    """The task called `name`, or the one at an import path such as ``my_package.colours.task:ColourTask``.

    Raises:
        UnknownTaskError: there is no such task, it cannot be imported, or what is there is not a task.
    """
    path = TASKS.get(name, name)
    module_name, colon, class_name = path.partition(":")
    if not colon:
        nearest = difflib.get_close_matches(name, TASK_NAMES, n=2, cutoff=0.4)
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        raise UnknownTaskError(
            f"unknown task {name!r}{hint} (tasks: {', '.join(TASK_NAMES)}; groups: {', '.join(TASK_GROUPS)}; "
            "one of your own: package.module:ClassName)"
        )
    return _imported(path, module_name, class_name)


def _imported(path: str, module_name: str, class_name: str) -> Task:
    try:
        found = vars(import_module(module_name)).get(class_name)
    except Exception as error:  # whatever the code of the module raises when it is imported
        raise UnknownTaskError(
            f"cannot import {module_name!r} for the task {path!r}: {one_line(error)}; "
            "is its folder installed, or on PYTHONPATH?"
        ) from error
    if not isinstance(found, type):
        raise UnknownTaskError(f"{module_name} has no class {class_name!r}; write package.module:ClassName")
    try:
        task = found()
    except TypeError as error:
        raise UnknownTaskError(f"{path} cannot be made without arguments: {one_line(error)}") from error
    members = sorted(name for name in vars(Task) if not name.startswith("_"))
    missing = [name for name in members if not hasattr(task, name)]
    if missing:
        raise UnknownTaskError(f"{path} is not a task; it lacks {', '.join(missing)}")
    assert isinstance(task, Task)
    return task
