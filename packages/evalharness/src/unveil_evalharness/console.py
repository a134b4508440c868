"""Where text goes during a run: the table alone on stdout, messages on stderr, library chatter in log files."""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tqdm import tqdm
from unveil_backbones.redaction import redact

from unveil_evalharness.errors import OutputError

__all__ = ["LogSink", "say"]


def say(message: str) -> None:
    """Writes one line to stderr without tearing a progress bar."""
    tqdm.write(redact(message), file=sys.stderr)


class LogSink(io.TextIOBase):
    """A stream that writes to the log file of the task under way and drops nothing: outside a task it is stderr.

    Libraries keep the stream they found as ``sys.stdout`` (mmengine's logger does); one object that outlives the
    single log files keeps such handlers valid.
    """

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def write(self, text: str) -> int:
        """Writes to the open log file, or to stderr."""
        (self._file or sys.stderr).write(redact(text))
        return len(text)

    def flush(self) -> None:
        """Flushes the open log file, or stderr."""
        (self._file or sys.stderr).flush()

    def line(self, message: str) -> None:
        """Writes one line to the log file and to stderr."""
        if self._file is not None:
            self.write(message + "\n")
        say(message)

    @contextlib.contextmanager
    def into(self, path: Path) -> Iterator[None]:
        """Sends stdout and warnings to the end of `path` while the block runs.

        Raises:
            OutputError: the log file cannot be opened.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; choose another --output-path") from error
        with file, contextlib.redirect_stdout(self), warnings.catch_warnings():
            show = warnings.showwarning

            def to_log(
                message: Warning | str,
                category: type[Warning],
                filename: str,
                lineno: int,
                _file: TextIO | None = None,
                line: str | None = None,
            ) -> None:
                show(message, category, filename, lineno, file, line)

            warnings.showwarning = to_log
            self._file = file
            try:
                yield
            finally:
                self._file = None
