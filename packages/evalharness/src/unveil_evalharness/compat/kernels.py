"""Where torchvision's compiled operators are, if they are loaded."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["at_least_float32", "torchvision_kernels"]


def torchvision_kernels() -> Any | None:
    """``torch.ops.torchvision`` where its compiled operators are loaded, else None.

    ``ensure_torchvision`` declares the schema of ``nms`` even where nothing is compiled, so that the presence of
    ``roi_align``, which it leaves undeclared, tells the two cases apart.
    """
    return torch.ops.torchvision if hasattr(torch.ops.torchvision, "roi_align") else None


def at_least_float32(tensor: Tensor) -> Tensor:
    """`tensor` itself in float32 or float64, else converted to float32: mixed precision is computed in float32."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
