"""Files that are there whole or not at all, and one writer at a time, however a process ends (standard library only).

A file is written beside its place, brought to the disk and renamed. A killed process leaves the one beside the place:
it is recognised by its name and by a lock that nobody holds any more, and removed by the next process.
"""

import contextlib
import errno
import fcntl
import glob
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["alone", "remove_unfinished", "unfinished_folder", "write_whole"]

_SUFFIX = ".unfinished.tmp"


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file that a reader sees whole or not at all, in a folder that exists; text as UTF-8.

    Several processes may write the same file: one of their contents stays. A link stays, and the file that it names is
    written; what is no file (a pipe, /dev/stdout) is written as it is, which nothing can be renamed to.

    Raises:
        OSError: it cannot be written; what was there before is intact and nothing is left beside it.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(data)
        return
    place = path.resolve() if path.is_symlink() else path
    while not _written(place, data):
        pass


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left of files in a folder; those that are being written stay.

    Raises:
        OSError: one cannot be removed.
    """
    for file in folder.glob(f".*{_SUFFIX}"):
        # Open for writing, without which NFS locks nothing.
        with contextlib.suppress(FileNotFoundError), file.open("r+b") as stream:
            if _locked(stream.fileno()):
                file.unlink()


@contextlib.contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path``, to be filled and renamed to it; removed with the block where it was not renamed.

    What killed processes left of the same path goes first; a folder that another process fills stays, and so does what
    cannot be locked (NFS) or removed: that is no reason to refuse what is to be written.

    Raises:
        OSError: it cannot be made.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        _remove_left_folder(left)
    while True:
        folder = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
        folder.mkdir()
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # between the two, another process took it for one that was left
            continue
        try:
            with contextlib.suppress(OSError):  # no locks: nobody can take it for one that was left either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_at(folder, descriptor):  # another process was faster
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)  # nothing is there once it was renamed
            return
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[bool]:
    """Hold a lock file while the block runs, in a folder that exists; False at once where another process holds it.

    The lock ends with the process, however it ends; the file goes with the lock unless the process was killed, and one
    that was left keeps nobody out.

    Raises:
        OSError: the file cannot be made, or the file system knows no locks.
    """
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _locked(descriptor):
                yield False
                return
            # The one before may have removed the file between our opening it and our lock.
            if not _is_at(lock, descriptor):
                continue
            try:
                yield True
            finally:
                lock.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def _written(path: Path, data: bytes) -> bool:
    """One attempt; False where another process took the unfinished file for one that was left."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            # On a file system without locks nobody takes it away: `remove_unfinished` cannot lock it either.
            with contextlib.suppress(OSError):
                fcntl.flock(stream, fcntl.LOCK_EX)
            if os.fstat(stream.fileno()).st_nlink == 0:
                return False
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
            unfinished.chmod(0o644)  # mkstemp makes files that only their owner may read
            unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return True


def _remove_left_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if _locked(descriptor) and _is_at(folder, descriptor):
                shutil.rmtree(folder)
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Take the lock of an open file if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
