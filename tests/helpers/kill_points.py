"""Faults at the k-th file operation of a process: an end by SIGKILL, or a refusal of the file system.

Operations are opening for writing, writing, fsync, renaming, removing and making folders, below one folder. A kill
falls in front of the operation; a write is torn: half of it reaches the file. It patches modules, so it is for a
process that ends with it.
"""

import builtins
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["at_operation", "count_operations", "refuse_everything_behind"]

_Act = Callable[[str, Callable[[], None]], None]


def count_operations(folder: str, tally: str) -> None:
    """Write the names of all operations below `folder` into the file `tally`, a line each."""
    descriptor = os.open(tally, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    write = os.write

    def act(what: str, tear: Callable[[], None]) -> None:
        del tear
        write(descriptor, f"{what}\n".encode())

    _watch(folder, act)


def at_operation(folder: str, number: int) -> None:
    """Kill this process at operation `number`, counted from 0; half of a write is then in its file."""
    seen = iter(range(10**9))

    def act(what: str, tear: Callable[[], None]) -> None:
        del what
        if next(seen) == number:
            tear()
            os.kill(os.getpid(), signal.SIGKILL)

    _watch(folder, act)


def refuse_everything_behind(folder: str, number: int, code: int) -> None:
    """Answer operation `number` and all later ones by the error `code` (ENOSPC, EROFS), until the process ends.

    Removing works, as it does on a full disk.
    """
    seen = iter(range(10**9))

    def act(what: str, tear: Callable[[], None]) -> None:
        if next(seen) >= number and not what.startswith(("remove", "rmdir")):
            if next(seen) == number + 1:
                tear()
            raise OSError(code, os.strerror(code))

    _watch(folder, act)


def _watch(folder: str, act: _Act) -> None:
    root = os.path.realpath(folder)

    def inside(path: object) -> bool:
        if isinstance(path, int):
            try:
                path = Path(f"/proc/self/fd/{path}").readlink()
            except OSError:
                return False
        return os.path.realpath(os.fsdecode(path)).startswith(root)  # pyright: ignore[reportArgumentType]

    _watch_calls(inside, act)
    _watch_streams(inside, act)
    _watch_tensors(inside, act)


def _watch_calls(inside: Callable[[object], bool], act: _Act) -> None:
    def patched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(path: Any, *given: Any, **named: Any) -> Any:
            whole = path if named.get("dir_fd") is None else f"/proc/self/fd/{named['dir_fd']}/{path}"
            if inside(whole):
                tear = lambda: None  # noqa: E731
                if name == "write":
                    tear = lambda: call(path, given[0][: len(given[0]) // 2])  # noqa: E731
                act(f"{name} {path}", tear)
            return call(path, *given, **named)

        return instead

    for name in ("replace", "rename", "remove", "unlink", "rmdir", "mkdir", "fsync", "write", "ftruncate"):
        setattr(os, name, patched("remove" if name == "unlink" else name, getattr(os, name)))


def _watch_streams(inside: Callable[[object], bool], act: _Act) -> None:
    real = io.open

    def opened(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        writes = any(letter in mode for letter in "wax+")
        known = writes and inside(file)
        if known and not isinstance(file, int):
            act(f"open {file}", lambda: None)
        stream = real(file, mode, *given, **named)
        if known:
            write = stream.write

            def torn(content: Any) -> int:
                def tear() -> None:
                    write(content[: len(content) // 2])
                    stream.flush()

                act(f"write {file}", tear)
                return write(content)

            try:
                stream.write = torn
            except AttributeError:  # a kind of stream that takes no attribute: its other operations are watched
                return stream
        return stream

    io.open = builtins.open = opened  # pyright: ignore[reportAttributeAccessIssue]


def _watch_tensors(inside: Callable[[object], bool], act: _Act) -> None:
    """safetensors writes from Rust, past Python's files."""
    import safetensors.torch as module

    real = module.serialize_file

    def instead(tensors: Any, filename: Any, *given: Any, **named: Any) -> None:
        if inside(filename):

            def tear() -> None:
                real(tensors, filename, *given, **named)
                os.truncate(filename, Path(filename).stat().st_size // 2)

            act(f"tensors {filename}", tear)
        real(tensors, filename, *given, **named)

    module.serialize_file = instead
