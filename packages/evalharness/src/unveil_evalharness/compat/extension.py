"""The stand-in for ``mmcv._ext``, the compiled half of mmcv that mmcv-lite does not ship.

``mmcv/utils/ext_loader.py`` imports ``mmcv._ext`` and asks it for each operator by name when ``mmcv.ops`` is
imported. The stand-in answers every name, so that ``mmcv.ops``, mmdet and mmseg import unchanged; the names in
`OPERATORS` compute, any other raises `OperatorNotOfferedError` when it is *called*.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any, NoReturn

from unveil_evalharness.compat import boxes, focal_loss, roi_align
from unveil_evalharness.errors import DependencyError, HarnessError

__all__ = ["EXTENSION", "OPERATORS", "OperatorNotOfferedError", "install_operators", "stand_in"]

EXTENSION = "mmcv._ext"

OPERATORS: dict[str, Callable[..., Any]] = {
    "bbox_overlaps": boxes.bbox_overlaps,
    "nms": boxes.nms,
    "nms_match": boxes.nms_match,
    "softnms": boxes.softnms,
    "roi_align_forward": roi_align.roi_align_forward,
    "roi_align_backward": roi_align.roi_align_backward,
    "sigmoid_focal_loss_forward": focal_loss.sigmoid_focal_loss_forward,
    "sigmoid_focal_loss_backward": focal_loss.sigmoid_focal_loss_backward,
    "softmax_focal_loss_forward": focal_loss.softmax_focal_loss_forward,
    "softmax_focal_loss_backward": focal_loss.softmax_focal_loss_backward,
}
"""What the stand-in computes, under the names and argument orders of mmcv 2.1's ``ops/csrc/pytorch/pybind.cpp``."""


class OperatorNotOfferedError(HarnessError, NotImplementedError):
    """An mmcv operator was called that the stand-in does not compute."""


def stand_in() -> types.ModuleType:
    """A new module object that behaves like ``mmcv._ext`` for the operators in `OPERATORS`."""
    module = types.ModuleType(EXTENSION, "Stand-in for mmcv's compiled operators (unveil_evalharness.compat).")
    module.__spec__ = ModuleSpec(EXTENSION, None, origin=__name__)
    for name, function in OPERATORS.items():
        setattr(module, name, function)

    def missing(name: str) -> Callable[..., NoReturn]:
        # Tools that walk sys.modules (inspect, pickle) probe dunder names and expect AttributeError.
        if name.startswith("__"):
            raise AttributeError(f"module {EXTENSION!r} has no attribute {name!r}")

        def refuse(*_args: object, **_options: object) -> NoReturn:
            raise OperatorNotOfferedError(
                f"mmcv operator {name!r} was called, the stand-in for mmcv's compiled operators offers only "
                f"{', '.join(sorted(OPERATORS))}; install a compiled mmcv 2.1 to use {name!r}"
            )

        return refuse

    vars(module)["__getattr__"] = missing
    return module


def install_operators() -> types.ModuleType:
    """Makes ``mmcv._ext`` importable and returns it: the compiled module where there is one, else the stand-in.

    Raises:
        DependencyError: mmcv is not installed, or holds a compiled module that does not load with this PyTorch.
    """
    if EXTENSION in sys.modules:
        return sys.modules[EXTENSION]
    package = importlib.util.find_spec("mmcv")
    if package is None:
        raise DependencyError("mmcv is not installed; run: pip install 'unveil-evalharness[detection]'")
    compiled = PathFinder.find_spec(EXTENSION, package.submodule_search_locations)
    if compiled is not None:
        try:
            return importlib.import_module(EXTENSION)
        except ImportError as error:
            raise DependencyError(
                f"the compiled mmcv operators in {compiled.origin} do not load ({error}); rebuild mmcv against this "
                "PyTorch, or replace it: pip uninstall mmcv && pip install mmcv-lite==2.1.0"
            ) from error
    module = stand_in()
    sys.modules[EXTENSION] = module
    return module
