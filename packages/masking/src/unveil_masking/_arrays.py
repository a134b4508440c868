"""The few things NumPy and PyTorch spell differently, so that everything else is written once.

torch is never imported: a caller who passes a tensor has loaded it already, and `sys.modules` hands it over.
"""

import sys
from typing import Any

import numpy as np

from unveil_masking.errors import KeyArrayError

__all__ = ["arange", "from_host", "gather", "integers", "library", "on_host", "sort", "where_am_i"]


def library(array: object) -> Any | None:
    """The module an array belongs to (`numpy` or `torch`), or None when it is neither."""
    if isinstance(array, np.ndarray):
        return np
    torch: Any = sys.modules.get("torch")
    return torch if torch is not None and isinstance(array, torch.Tensor) else None


def on_host(array: Any) -> np.ndarray | None:
    """The same memory as a NumPy array, where NumPy may do the work: an eager torch tensor on the CPU, or NumPy's own.

    None on other devices and while torch traces a graph. NumPy's integer loops beat torch's on a CPU, and both give
    the same bits, so this changes the time and nothing else.
    """
    xp = library(array)
    if xp is np:
        return array
    if xp is None or xp.compiler.is_compiling() or type(array) is not xp.Tensor or array.device.type != "cpu":
        return None
    return array.numpy()


def from_host(array: np.ndarray, like: Any) -> Any:
    """A NumPy array as an array of the library of `like`, sharing its memory."""
    xp = library(like)
    return array if xp is np or xp is None else xp.from_numpy(array)


def where_am_i(array: Any) -> str:
    """Library and device in words, for error messages and for telling whether two arrays can meet."""
    xp = library(array)
    if xp is None:
        return type(array).__name__
    return "numpy" if xp is np else f"torch on {array.device}"


def integers(array: Any, name: str) -> Any:
    """A one-dimensional integer array as int64, in its own library and on its own device.

    Raises:
        KeyArrayError: another type, dtype or number of dimensions.
    """
    xp = library(array)
    if xp is None:
        raise KeyArrayError(
            f"{name} is a {type(array).__name__}. Give a one-dimensional int64 NumPy array or torch tensor, "
            "for example numpy.array([7, 8, 9])."
        )
    if xp is np:
        is_integer = array.dtype.kind in "iu"
    else:
        is_integer = not (array.is_floating_point() or array.is_complex() or array.dtype == xp.bool)
    if array.ndim != 1 or not is_integer:
        raise KeyArrayError(
            f"{name} has dtype {array.dtype} and shape {tuple(array.shape)}. Give one integer per sample: "
            "a one-dimensional int64 array."
        )
    return array.astype(np.int64) if xp is np else array.to(xp.int64)


def arange(count: int, like: Any) -> Any:
    """int64 `[0, count)` in the library and on the device of `like`."""
    xp = library(like)
    if xp is np:
        return np.arange(count, dtype=np.int64)
    assert xp is not None
    return xp.arange(count, dtype=xp.int64, device=like.device)


def sort(array: Any) -> Any:
    """Values sorted ascending along the last axis."""
    return np.sort(array, axis=-1) if library(array) is np else array.sort(-1).values


def gather(array: Any, index: Any) -> Any:
    """`array[b, index[b, k], d]` for `array` [b, n, d] and `index` [b, k]: the tokens named by `index`."""
    xp = library(array)
    if xp is np:
        return np.take_along_axis(array, index[:, :, None], 1)
    assert xp is not None
    return xp.take_along_dim(array, index[:, :, None], 1)
