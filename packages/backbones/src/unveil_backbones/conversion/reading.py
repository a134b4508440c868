"""Read the tensors of a foreign file without running or unpacking anything it brings along.

A ``.pth`` is a pickle, which may name any function to call, mostly inside a zip archive, which may expand to anything.
Pickles are read by PyTorch's restricted reader (``weights_only=True``: tensors and plain containers, no calls), and
archives only if they are what PyTorch writes: stored, not compressed, so that nothing can expand. Archives are mapped
into memory, so that a tensor that claims more numbers than its entry has cannot show memory beyond the file.
"""

import argparse
import struct
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unveil_backbones._files import check_header
from unveil_backbones.conversion.archive import check_archive
from unveil_backbones.errors import CheckpointNotFoundError, ConvertError, TruncatedError, UnsafeFileError
from unveil_backbones.places import is_file

__all__ = ["read_tensors"]

_ENTRIES = ("model", "state_dict", "teacher", "module")
"""Where training programs put the weights inside a ``.pth``."""

_AVOID = "do not use a file from this source"

# Training programs leave their settings beside the weights: a command line, or a dictionary of the package yacs, which
# is read as a plain one. Neither runs anything.
_HARMLESS = [argparse.Namespace, (OrderedDict, "yacs.config.CfgNode")]
_SAFE_SINCE = (2, 6)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Return the tensors of a ``.safetensors`` or ``.pth`` file by name, and the entry they were under.

    Args:
        path: The file.

    Raises:
        CheckpointNotFoundError: There is no such file.
        UnsafeFileError: It holds code or other objects, or would expand when read.
        UnsafePathError: A name inside the archive leads out of it.
        TruncatedError: It ends too early.
        ConvertError: It holds no tensors by name.
    """
    if not is_file(path):
        raise CheckpointNotFoundError(f"{path} is not a file; give a .pth, .pt, .bin or .safetensors file")
    if path.stat().st_size == 0:
        raise TruncatedError(f"{path} is empty; copy it again")
    if path.suffix == ".safetensors":
        return _read_safetensors(path), None
    found = _read_pickle(path)
    # What a file may hold is unknown to the type checker and checked here.
    content: Mapping[Any, Any] = cast(Mapping[Any, Any], found) if isinstance(found, Mapping) else {}
    entry = next((name for name in _ENTRIES if isinstance(content.get(name), Mapping)), None)
    tensors: Mapping[Any, Any] = content if entry is None else content[entry]
    plain = {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not plain:
        raise ConvertError(
            f"{path} holds {type(found).__name__} without tensors by name; a state dict is needed, alone or under "
            f"{', '.join(_ENTRIES)}; save `model.state_dict()`"
        )
    _check_sizes(plain, path)
    return plain, entry


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    check_header(path)
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise TruncatedError(f"{path} is not a whole safetensors file ({error}); copy it again") from error
    except (KeyError, ValueError, TypeError, RuntimeError) as error:  # number types that PyTorch has not
        raise ConvertError(f"{path} holds tensors that PyTorch cannot hold ({error}); convert it to float32") from error
    if not tensors:
        raise ConvertError(f"{path} holds no tensors; take the file of the weights")
    return tensors


def _read_pickle(path: Path) -> object:
    with path.open("rb") as stream:
        start = stream.read(512)
    archive = start.startswith(b"PK\x03\x04")
    if archive:
        check_archive(path)
    elif start[257:262] == b"ustar":
        raise ConvertError(
            f"{path} is a tar archive, as PyTorch wrote before 2017; it cannot be read safely; save its state dict anew"
        )
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SAFE_SINCE:
        raise UnsafeFileError(
            f"{path} is a pickle, and the restricted reader of PyTorch {torch.__version__} can be made to run code "
            "(CVE-2025-32434); upgrade to PyTorch 2.6, or convert a safetensors file"
        )
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            # What the reader cannot read it refuses; its advice on old or odd files is for those who wrote them.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)  # noqa: TID251  the one reader
    except UnpicklingError as error:
        raise _unsafe(path, str(error)) from error
    except (RuntimeError, AssertionError, EOFError, MemoryError, OSError, struct.error) as error:
        raise TruncatedError(f"{path} cannot be read ({_first_line(error)}); copy it again") from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # What the restricted reader met made no sense to it: a pickle that no program writes.
        raise _unsafe(path, _first_line(error)) from error


def _unsafe(path: Path, message: str) -> UnsafeFileError:
    # What the reader met follows its advice, which is not for files of strangers.
    said = message.rpartition("WeightsUnpickler error:")[2].splitlines()
    reason = next((line.strip() for line in said if line.strip()), "no reason given")
    return UnsafeFileError(
        f"{path} holds more than tensors ({reason}); nothing of it was run; {_AVOID}, or, if you made it yourself, "
        "save its `state_dict()` alone"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_sizes(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse views that are larger than what they look at: copying them would fill the memory."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise ConvertError(
                f"{path}: {name} is {tensor.layout}, quantised or without numbers; weights are plain tensors; "
                "convert it first"
            )
        size = tensor.numel() * tensor.element_size()
        if size > tensor.untyped_storage().nbytes():
            raise UnsafeFileError(f"{path}: {name} has {size} bytes in a smaller storage; weights are whole; {_AVOID}")
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    # Names may share one tensor (tied weights), but not so many that copies outgrow the file.
    if total > 4 * path.stat().st_size:
        raise UnsafeFileError(f"{path} has {path.stat().st_size} bytes, its tensors {total}; {_AVOID}")
