"""Keeps the traces that libraries written in Rust print, when a damaged file makes them panic, from the terminal."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_traces"]


@contextmanager
def without_traces() -> Iterator[None]:
    """What is printed to file descriptor 2 within is shown afterwards, unless the block ends with an exception.

    A panic prints a page before it becomes an exception; whoever catches that says what is wrong in one line.
    """
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as said:
        try:
            os.dup2(said.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(real, 2)
            said.seek(0)
            while block := said.read(65_536):
                os.write(real, block)
        finally:
            os.close(real)
