"""From the words of a command line to a frozen dataclass, with one line per mistake."""

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from unveil_pretrain.errors import PretrainError

__all__ = ["parse", "parsed"]

_Options = TypeVar("_Options")


def parse(kind: type[_Options], given: Sequence[str], *, prog: str, default: _Options | None = None) -> _Options:
    """The options that the flags name; flags have no prefix, however the dataclasses nest.

    Args:
        kind: A frozen dataclass.
        given: The flags.
        prog: The command as a person types it, for messages.
        default: Values of the flags that are not given; without it those of the class.

    Raises:
        PretrainError: as `parsed`.
        SystemExit: as `parsed`.
    """
    config = (tyro.conf.OmitArgPrefixes,)
    if default is None:
        return parsed(lambda: tyro.cli(kind, args=list(given), prog=prog, config=config))
    return parsed(lambda: tyro.cli(kind, default=default, args=list(given), prog=prog, config=config))


def parsed(read: Callable[[], _Options]) -> _Options:
    """What `read` makes of the flags.

    Raises:
        PretrainError: a value that the dataclass itself refuses. tyro would show it in a frame of several lines.
        SystemExit: help was asked for, or the flags are wrong; tyro has said so.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return read()
    except SystemExit as stop:
        cause: BaseException | None = stop
        while cause is not None:
            if isinstance(cause, PretrainError):
                raise cause from None
            cause = cause.__context__
        print(said.getvalue(), end="", file=sys.stderr)
        raise
