"""Write a directory whole or not at all, and tell a damaged file from a foreign one (standard library only)."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from unveil_backbones.errors import (
    CheckpointExistsError,
    CheckpointWriteError,
    HashMismatchError,
    TruncatedError,
    UnsafeFileError,
    UnsafePathError,
)
from unveil_backbones.whole_files import unfinished_folder

__all__ = ["check_file", "check_header", "check_inside", "file_sha256", "hash_files", "write_directory"]

_LARGEST_HEADER = 32 * 2**20
"""Bytes of a safetensors header; the largest published models have below one million."""


def write_directory(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into a temporary sibling of ``path`` and rename that to ``path``.

    A reader sees all of it or nothing, also after a power cut: everything reaches the disk before the rename. What a
    killed process left of it is removed.

    Raises:
        CheckpointExistsError: ``path`` exists.
        CheckpointWriteError: The file system refused; nothing is left behind. What ``fill`` raises of its own passes.
    """
    if path.exists() or path.is_symlink():
        raise CheckpointExistsError(
            f"{path} exists; a checkpoint is never overwritten; remove it or choose another path"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_folder(path) as unfinished:
            fill(unfinished)
            _flush_tree(unfinished)
            unfinished.rename(path)
            try:
                _flush(path.parent)
            except OSError:
                path.rename(unfinished)  # the same command would find it, and refuse to write over it
                raise
    except OSError as error:
        raise _refused(path, error) from error


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path inside it."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file_sha256(file) for file in files}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_inside(folder: Path, name: str) -> None:
    """Refuse a file that a symbolic link takes out of the folder: its content would be another's.

    Raises:
        UnsafePathError: The file, or a folder on the way to it, is a link that leads outside, or in a circle.
    """
    try:
        real = (folder / name).resolve()
    except (OSError, RuntimeError) as error:  # the latter before Python 3.13
        raise UnsafePathError(
            f"{folder / name} is a link that leads nowhere ({error}); copy the checkpoint again"
        ) from error
    if not real.is_relative_to(folder.resolve()):
        raise UnsafePathError(
            f"{folder / name} is a link to {real}; files of a checkpoint stay inside it; "
            "copy the checkpoint with its links followed (`cp -rL`)"
        )


def check_header(path: Path) -> None:
    """Refuse a safetensors file whose header promises more than the file, or any honest file, has.

    Raises:
        TruncatedError: The file ends before its header does.
        UnsafeFileError: The header is absurdly large.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        header_size = int.from_bytes(stream.read(8), "little")
    if size >= 8 and header_size > _LARGEST_HEADER:
        raise UnsafeFileError(
            f"{path} announces a header of {header_size} bytes; at most {_LARGEST_HEADER} are read; "
            "do not use a file from this source"
        )
    if size < 8 or size - 8 < header_size:
        raise TruncatedError(f"{path} ends too early ({size} bytes); copy the checkpoint again")


def check_file(folder: Path, name: str, digest: str) -> None:
    """Refuse a file that is absent, cut short, or different from its digest.

    Raises:
        TruncatedError: The file is missing or ends too early.
        HashMismatchError: It has other content.
        UnsafePathError: A link takes it out of the folder.
    """
    check_inside(folder, name)
    path = folder / name
    if not path.is_file():
        raise TruncatedError(f"{path} is missing although the manifest lists it; copy the checkpoint again")
    found = file_sha256(path)
    if found == digest:
        return
    if _ends_early(path):
        raise TruncatedError(f"{path} ends too early ({path.stat().st_size} bytes); copy the checkpoint again")
    raise HashMismatchError(
        f"{path} has SHA-256 {found}, the manifest says {digest}; the file was changed after it was written; "
        "copy the checkpoint again"
    )


def _ends_early(path: Path) -> bool:
    """Whether a safetensors file is shorter than its own header promises; other files cannot tell."""
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        return size == 0
    with path.open("rb") as stream:
        header_size = int.from_bytes(stream.read(8), "little")
        if size < 8 or size - 8 < header_size:
            return True
        if header_size > _LARGEST_HEADER:
            return False
        try:
            header = json.loads(stream.read(header_size))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, AttributeError, LookupError, TypeError):  # the header itself was changed: not a short file
            return False
    return size < 8 + header_size + end


def _refused(path: Path, error: OSError) -> CheckpointWriteError:
    return CheckpointWriteError(
        f"{path} could not be written ({error}); nothing was left behind and earlier checkpoints are untouched; "
        "free space or choose a writable folder"
    )


def _flush_tree(folder: Path) -> None:
    for entry in folder.rglob("*"):
        _flush(entry)
    _flush(folder)


def _flush(path: Path) -> None:
    """Force a file or a folder to the disk (Windows cannot open folders; there the rename alone has to do)."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
