"""Look at a zip archive by its directory, before any content is read: is it what PyTorch writes?"""

import zipfile
from pathlib import Path, PurePosixPath

from unveil_backbones.errors import TruncatedError, UnsafeFileError, UnsafePathError

__all__ = ["check_archive"]

_AVOID = "do not use a file from this source"


def check_archive(path: Path) -> None:
    """Accept an archive of ``torch.save`` and nothing else.

    Raises:
        TruncatedError: It has no readable directory: it ends too early.
        UnsafePathError: A name leads out of it.
        UnsafeFileError: It holds code, expands, overlaps itself, or has two entries of one name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise TruncatedError(f"{path} has no readable archive directory ({error}); copy it again") from error
    for entry in entries:
        _check_entry(path, entry)
    declared, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if declared > size:
        raise UnsafeFileError(f"{path} has {size} bytes but declares {declared}: its entries overlap; {_AVOID}")
    if len({entry.filename for entry in entries}) < len(entries):
        raise UnsafeFileError(f"{path} holds two entries of one name, so that readers see different things; {_AVOID}")


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/") or "\\" in name or ":" in name:
        raise UnsafePathError(f"{path} names the entry {name!r}; entries stay inside; {_AVOID}")
    if len(parts) > 1 and (parts[1] == "code" or parts[1:] == ("constants.pkl",)):
        raise UnsafeFileError(
            f"{path} is a TorchScript archive, which holds code ({name!r}); nothing of it was run; where you trust it, "
            "save `torch.jit.load(path).state_dict()` and convert that"
        )
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise UnsafeFileError(
            f"{path} compresses {name!r} ({entry.compress_size} to {entry.file_size} bytes); PyTorch never does, and "
            f"such an archive may expand without end; {_AVOID}"
        )
