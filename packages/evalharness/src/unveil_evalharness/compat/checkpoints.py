"""Lets ``torch.load(weights_only=True)`` read the checkpoints that mmengine's own CheckpointHook writes.

From PyTorch 2.6 on ``weights_only=True`` is the default, and mmengine 0.10.7 loads with that default although its
training checkpoints hold a `HistoryBuffer` and NumPy scalars. Those classes are added to PyTorch's allow-list.
A HistoryBuffer pickles its own methods as ``getattr(HistoryBuffer, name)``; the unpickler is therefore given a
getattr that serves nothing but HistoryBuffer, so that a foreign pickle gains no way to other attributes.
"""

import importlib
import pickle
from typing import Any

import numpy as np
import torch

__all__ = ["allow_mmengine_checkpoints"]

_NUMBERS = (
    np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32,
    np.uint64, np.bool_,
)  # fmt: skip


def allow_mmengine_checkpoints() -> None:
    """Adds mmengine's checkpoint classes to PyTorch's allow-list; calling it again changes nothing."""
    # Before 2.6 the default is weights_only=False and the allow-list takes no renamed entries.
    if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 6):
        return
    already = torch.serialization.get_safe_globals()
    if any(isinstance(entry, tuple) and entry[0] is _history_buffer_attribute for entry in already):
        return
    torch.serialization.add_safe_globals(_safe_globals())


def _safe_globals() -> list[Any]:
    from mmengine.logging.history_buffer import HistoryBuffer

    # NumPy 2 renamed numpy.core to numpy._core; checkpoints of either era name the module they were written with.
    multiarray = importlib.import_module("numpy._core.multiarray" if _is_numpy_2() else "numpy.core.multiarray")
    safe: list[Any] = [HistoryBuffer, np.ndarray, np.dtype, (_history_buffer_attribute, "builtins.getattr")]
    for package in ("numpy.core", "numpy._core"):
        safe.append((multiarray.scalar, f"{package}.multiarray.scalar"))
        safe.append((multiarray._reconstruct, f"{package}.multiarray._reconstruct"))
    safe.extend(type(np.dtype(number)) for number in _NUMBERS)
    return safe


def _is_numpy_2() -> bool:
    return int(np.__version__.split(".")[0]) >= 2


def _history_buffer_attribute(owner: object, name: str) -> Any:
    """``getattr`` for HistoryBuffer's statistics methods only."""
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name.startswith("_"):
        raise pickle.UnpicklingError(
            f"this checkpoint asks for attribute {name!r} of {owner!r}; only statistics of mmengine's HistoryBuffer "
            "are allowed: do not load files from sources you do not trust"
        )
    return getattr(owner, name)
