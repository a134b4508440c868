"""Read the tensors of a foreign file without running or unpacking anything it brings along.

A ``.pth`` is a pickle, which may name any function to call, mostly inside a zip archive, which may expand to anything.
Pickles are read by PyTorch's restricted reader (``weights_only=True``: tensors and plain containers, no calls), and
archives only if they are what PyTorch writes: stored, not compressed, so that nothing can expand.
"""

import argparse
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from unveil_backbones._files import check_header
from unveil_backbones.errors import (
    CheckpointNotFoundError,
    ConvertError,
    TruncatedError,
    UnsafeFileError,
    UnsafePathError,
)

__all__ = ["read_tensors"]

_ENTRIES = ("model", "state_dict", "teacher", "module")
"""Where training programs put the weights inside a ``.pth``."""

_AVOID = "do not use a file from this source"


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
    if not path.is_file():
        raise CheckpointNotFoundError(f"{path} is not a file; give a .pth, .pt, .bin or .safetensors file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path), None
    found = _read_pickle(path)
    entry = next(
        (name for name in _ENTRIES if isinstance(found, Mapping) and isinstance(found.get(name), Mapping)), None
    )
    tensors = found[entry] if entry is not None else found
    if not isinstance(tensors, Mapping) or not any(isinstance(value, Tensor) for value in tensors.values()):
        raise ConvertError(
            f"{path} holds {type(found).__name__} without tensors by name; a state dict is needed, alone or under "
            f"{', '.join(_ENTRIES)}; save `model.state_dict()`"
        )
    plain = {str(name): value for name, value in tensors.items() if isinstance(value, Tensor)}
    _check_sizes(plain, path)
    return plain, entry


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    check_header(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise TruncatedError(f"{path} is not a whole safetensors file ({error}); copy it again") from error


def _read_pickle(path: Path) -> object:
    if zipfile.is_zipfile(path):
        _check_archive(path)
    elif _starts_like_zip(path):
        raise TruncatedError(f"{path} begins like an archive but its directory at the end is missing; copy it again")
    try:
        # Training programs leave their command line beside the weights; a Namespace holds values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251  the one reader of pickles
    except UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UnsafeFileError(
            f"{path} holds more than tensors ({_allowed_only(str(error)) or reason}); nothing of it was run; {_AVOID}, "
            "or, if you made it yourself, save its `state_dict()` alone"
        ) from error
    except (RuntimeError, EOFError, MemoryError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TruncatedError(f"{path} cannot be read ({str(error).splitlines()[0]}); copy it again") from error


def _allowed_only(message: str) -> str:
    """The line of PyTorch's message that names what it met."""
    return next((line.strip() for line in message.splitlines() if "GLOBAL" in line or "Unsupported" in line), "")


def _starts_like_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _check_archive(path: Path) -> None:
    """Accept what PyTorch writes and nothing else, by the archive's directory, before any content is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise TruncatedError(f"{path} has no readable archive directory ({error}); copy it again") from error
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        if ".." in parts or entry.filename.startswith("/") or "\\" in entry.filename or ":" in entry.filename:
            raise UnsafePathError(f"{path} names the entry {entry.filename!r}; entries stay inside; {_AVOID}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise UnsafeFileError(
                f"{path} compresses {entry.filename!r} ({entry.compress_size} to {entry.file_size} bytes); PyTorch never "
                f"does, and such an archive may expand without end; {_AVOID}"
            )
    declared, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if declared > size:
        raise UnsafeFileError(f"{path} has {size} bytes but declares {declared}: its entries overlap; {_AVOID}")
    if len({entry.filename for entry in entries}) < len(entries):
        raise UnsafeFileError(f"{path} holds two entries of one name, so that readers see different things; {_AVOID}")


def _check_sizes(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse views that are larger than what they look at: copying them would fill the memory."""
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise ConvertError(
                f"{path}: {name} is {tensor.layout} or quantised; weights are plain tensors; convert it first"
            )
        if size > tensor.untyped_storage().nbytes():
            raise UnsafeFileError(f"{path}: {name} has {size} bytes in a smaller storage; weights are whole; {_AVOID}")
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    # Names may share one tensor (tied weights), but not so many that copies outgrow the file.
    if total > 4 * path.stat().st_size:
        raise UnsafeFileError(f"{path} has {path.stat().st_size} bytes, its tensors {total}; {_AVOID}")
