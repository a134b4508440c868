"""What a command prints, made safe: no secrets, and nothing that a file can make a terminal do.

Labels, file names and messages come from files of others. An escape sequence in one of them would move the cursor,
rename the window or write to the clipboard of whoever reads the output. And whoever reads may go before the end, as
`head` does. The standard library only.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO, cast

from unveil_backbones.redaction import redact

__all__ = ["READER_GONE", "ReaderGone", "SafeStream", "guard_output", "quiet_without_reader", "visible", "whole_output"]

READER_GONE: Final = 141
"""Exit code of a command whose reader has gone: what a shell gives for an end by SIGPIPE."""

# C0 and C1 controls, the marks that turn the direction of text around, so that it reads otherwise than it is, and what
# is no character: halves of surrogate pairs, which no file can hold.
_CONTROLS: Final = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ufffe\uffff\ud800-\udfff"
)
_ALL: Final = re.compile(f"[{_CONTROLS}\t\n\r]")
# Programs of ours colour their help and move a progress bar: these two kinds stay.
_STREAM: Final = re.compile(rf"\x1b\[(?:[0-9;]{{0,20}}m|[0-9]{{0,3}}[AK])|[{_CONTROLS}]")


def visible(text: str) -> str:
    """One line in which every control character is shown by its number, such as (backslash) x1b, and does nothing."""
    return _ALL.sub(_shown, text) if _ALL.search(text) else text


def guard_output() -> None:
    """Let everything that this process prints from here on go through `SafeStream`; for a command, not for a library.

    Also what Python itself prints of an error that nobody caught.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, SafeStream):
            setattr(sys, name, cast(TextIO, SafeStream(stream)))


class ReaderGone(BaseException):
    """Nobody reads any more what this process prints.

    No error, and no `OSError`: a pipe between this process and another one that breaks is something else.
    """


@contextlib.contextmanager
def quiet_without_reader() -> Iterator[None]:
    """Let a command end with `READER_GONE` and without a word when its reader has gone; around all of the command.

    SIGPIPE itself would do so too, but for every pipe and socket of the process.
    """
    try:
        yield
    except ReaderGone:
        raise SystemExit(READER_GONE) from None


@contextlib.contextmanager
def whole_output() -> Iterator[None]:
    """Bring what was printed to its reader before the block ends, so that what stops it can be said and handled.

    Raises:
        ReaderGone: the reader has gone.
        OSError: stdout takes no more, such as a file on a full disk.
    """
    try:
        yield
    finally:
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]  closed by whoever started this
            sys.stdout.flush()


class SafeStream:
    """A text stream that hides secrets and shows control characters instead of passing them on.

    A secret that is written in two pieces passes; `redact` what is recorded. Writing and flushing raise `ReaderGone`
    when the other end of a pipe was closed; what is written after that goes nowhere.
    """

    def __init__(self, stream: io.TextIOBase) -> None:
        """Write to `stream`; everything else is done by it."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without secrets and escape sequences; gives the number of characters taken."""
        with self._telling_readers():
            self._stream.write(_STREAM.sub(_kept, redact(text)))
        return len(text)

    def flush(self) -> None:
        """Bring what was written to its reader."""
        with self._telling_readers():
            self._stream.flush()

    def writelines(self, lines: Any) -> None:
        """Write one text after the other."""
        for line in lines:
            self.write(line)

    @contextlib.contextmanager
    def _telling_readers(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Python would try what is left in the buffer again when it ends, and print that it cannot.
            with contextlib.suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            if isinstance(error, BrokenPipeError):
                raise ReaderGone from None
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _kept(found: re.Match[str]) -> str:
    return found[0] if len(found[0]) > 1 else _shown(found)


def _shown(found: re.Match[str]) -> str:
    character = found[0]
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[character]
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
