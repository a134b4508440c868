"""The downstream tasks by name; each is imported only when it is asked for."""

import difflib

from unveil_evalharness.errors import UnknownTaskError
from unveil_evalharness.task import Task

__all__ = ["TASK_NAMES", "load_task"]

TASK_NAMES: tuple[str, ...] = ("imagenet_ft", "coco_det", "ade20k_seg", "zs_retrieval")


def load_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        UnknownTaskError: there is no such task; names the nearest ones.
    """
    match name:
        case "imagenet_ft":
            from unveil_evalharness.tasks.imagenet_ft.task import ImagenetFineTune

            return ImagenetFineTune()
        case "coco_det":
            from unveil_evalharness.tasks.coco_det.task import CocoDetection

            return CocoDetection()
        case "ade20k_seg":
            from unveil_evalharness.tasks.ade20k_seg.task import Ade20kSegmentation

            return Ade20kSegmentation()
        case "zs_retrieval":
            from unveil_evalharness.tasks.zs_retrieval.task import ZeroShotRetrieval

            return ZeroShotRetrieval()
        case _:
            nearest = difflib.get_close_matches(name, TASK_NAMES, n=2, cutoff=0.4)
            hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
            raise UnknownTaskError(f"unknown task {name!r}{hint} (tasks: {', '.join(TASK_NAMES)})")
