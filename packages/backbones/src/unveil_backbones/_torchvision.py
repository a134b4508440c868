"""Import torchvision where its compiled operators cannot be loaded (timm imports torchvision).

A CUDA-linked torchvision beside a CPU-only torch cannot load its C++ operators. That alone would do no harm here
(nothing in this package uses them), but torchvision registers shape functions for ``torchvision::nms`` and
``torchvision::qnms`` unconditionally while it is imported, and torch refuses those for operators that nobody declared:
``import torchvision`` ends in ``RuntimeError: operator torchvision::nms does not exist``. Declaring the two schemas is
enough for the import.

Only the schemas are declared, no implementation: calling such an operator still fails with torch's own message, and
whoever needs it (detection) may register a kernel for it.
"""

import importlib
import sys
from functools import cache
from types import ModuleType

import torch

__all__ = ["ensure_torchvision"]

_OPERATORS = ("nms", "qnms")


def ensure_torchvision() -> ModuleType:
    """Import torchvision and return it; call this before the first import of timm. Calling it again changes nothing.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: torchvision cannot be imported for a reason other than the undeclared operators.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    # The failed import leaves finished submodules behind, which would mix with those of the second attempt.
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _declared_schemas()
    return importlib.import_module("torchvision")


# The declarations vanish when their Library object is collected, so something has to hold it as long as the process
# lives. The cache of this function is that holder, the only module state here, and makes the declaration happen once.
@cache
def _declared_schemas() -> torch.library.Library:
    """Declare the operators that torchvision registers shape functions for, with torchvision's own signatures."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
