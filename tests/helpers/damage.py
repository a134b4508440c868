"""Ways in which a file gets damaged, and the question whether a reader notices: a table's row at a time."""

import contextlib
import ctypes
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzzing import NAMED, bounded

__all__ = ["DAMAGES", "Case", "Found", "command", "problems_of", "without_rights"]

_CAPABILITIES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: with them root reads what nobody may
_SECONDS = 30


class Found(Exception):  # noqa: N818  it is no error: a check has found something
    """A command ended with an exit code of its own, such as 1 of a check, and says what it found."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file and whoever reads it."""

    make: Callable[[Any, Path], Path]
    """From the specimens and an empty folder to a whole file (and whatever it needs around it) in that folder."""
    read: Callable[[Path], Any]
    """From the folder to a result that can be compared with `==`."""
    flips: int = 12
    """How many bits to flip, one at a time, spread over the file."""
    unchecked: str = ""
    """Why a flipped bit may lead to another result without a word; empty: it is found, or changes nothing."""
    tolerated: Mapping[str, str] = field(default_factory=dict)
    """Kinds of damage that may lead to another result, and why that is right."""
    unnamed: str = ""
    """Why the message need not name the file."""
    allowed: tuple[type[BaseException], ...] = NAMED
    """What the reader may raise; an OSError that names its file too, which both commands turn into one line."""


def _truncate(share: float) -> Callable[[Path], None]:
    def cut(file: Path) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share) if share < 1 else -1])

    return cut


def _to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _to_loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


DAMAGES: Mapping[str, Callable[[Path], None]] = {
    "cut to a tenth": _truncate(0.1),
    "cut in half": _truncate(0.5),
    "cut by a byte": _truncate(1),
    "emptied": lambda file: file.write_bytes(b"") and None,
    "zeros": lambda file: file.write_bytes(bytes(len(file.read_bytes()))) and None,
    "noise": lambda file: file.write_bytes(bytes((7 * n * n + 13 * n) % 256 for n in range(600))) and None,
    "another text": lambda file: file.write_text("<!doctype html><p>404 not found</p>\n") and None,
    "missing": lambda file: file.unlink(),
    "a folder": _to_folder,
    "a link to itself": _to_loop,
    "unreadable": lambda file: file.chmod(0),
}
"""Kinds of damage; flipped bits come besides."""


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """As somebody who may read only what permissions allow, although the tests may run as root."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    if os.geteuid() != 0 or libc.capget(header, data) != 0:
        yield
        return
    before = data[0]
    data[0] = before & ~sum(1 << number for number in _CAPABILITIES)
    assert libc.capset(header, data) == 0
    try:
        yield
    finally:
        data[0] = before
        assert libc.capset(header, data) == 0


def command(main: Callable[[list[str]], Any], *words: object, bad_input: int = 2) -> str:
    """What a command prints on stdout.

    Raises:
        OSError: it ended as for bad input; holds the line that it said. (A file's name is set, so that it passes.)
        Found: it ended with another code than 0.
    """
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
    said = error.getvalue()
    assert "Traceback" not in said, said
    if code == bad_input:
        lines = [line for line in said.splitlines() if ": error: " in line]
        assert len(lines) == 1, said
        raise OSError(0, lines[0], "said in one line")
    if code not in (0, None):
        raise Found(out.getvalue() + said)
    return out.getvalue()


def problems_of(case: Case, specimens: Any, root: Path) -> list[str]:
    """What is wrong with how the reader takes every kind of damage; empty if nothing is."""
    good = root / "good"
    good.mkdir()
    file = case.make(specimens, good)
    place = file.relative_to(good)
    expected = case.read(good)
    assert expected is not None
    problems = []
    for kind, damage in [*DAMAGES.items(), *_flips(file, case.flips)]:
        # The same path each time, since results may hold it.
        shutil.rmtree(good)
        file = case.make(specimens, good)
        assert file == good / place
        damage(file)
        with without_rights(), bounded(_SECONDS):
            problem = _problem(case, good, file, kind, expected)
        if file.is_file() and not file.is_symlink():
            file.chmod(0o600)
        if problem:
            problems.append(f"{kind}: {problem}")
    return problems


def _flips(file: Path, num: int) -> list[tuple[str, Callable[[Path], None]]]:
    size = file.stat().st_size

    def flip(offset: int, bit: int) -> Callable[[Path], None]:
        def flipped(damaged: Path) -> None:
            content = bytearray(damaged.read_bytes())
            content[min(offset, len(content) - 1)] ^= 1 << bit
            damaged.write_bytes(content)

        return flipped

    offsets = [(number * size // num + number * 37 % max(1, size // num)) % size for number in range(num)]
    return [(f"bit {number % 8} of byte {at}", flip(at, number % 8)) for number, at in enumerate(offsets)]


def _problem(case: Case, folder: Path, file: Path, kind: str, expected: Any) -> str:
    try:
        result = case.read(folder)
    except Found:
        return ""
    except case.allowed as error:
        return _problem_of_message(str(error), file, case)
    except OSError as error:
        if error.filename is None:
            return f"an OSError without a file: {error!r}"
        return _problem_of_message(error.strerror or "", file, case) if error.filename == "said in one line" else ""
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{type(error).__name__}: {str(error)[:300]}"
    flipped = kind.startswith("bit ")
    if result == expected or (flipped and case.unchecked) or (not flipped and kind in case.tolerated):
        return ""
    return f"another result without a word: {str(result)[:200]}"


def _problem_of_message(message: str, file: Path, case: Case) -> str:
    """A message names the file, or the folder it is looked for in."""
    if not message.strip():
        return "says nothing"
    names = (file.name, file.stem, file.parent.name, file.parent.parent.name)
    return (
        "" if case.unnamed or any(name in message for name in names) else f"does not name {file.name}: {message[:300]}"
    )
