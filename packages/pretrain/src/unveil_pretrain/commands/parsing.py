"""From the words of a command line to a frozen dataclass, with one line per mistake."""

import contextlib
import io
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from unveil_pretrain.errors import ConfigError, PretrainError

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
        return parsed(lambda: tyro.cli(kind, args=list(given), prog=prog, config=config), given)
    return parsed(lambda: tyro.cli(kind, default=default, args=list(given), prog=prog, config=config), given)


def parsed(read: Callable[[], _Options], given: Sequence[str] = ()) -> _Options:
    """What `read` makes of the flags `given`.

    Raises:
        PretrainError: a value that the dataclass itself refuses, which tyro would show in a frame of several lines; or
            shards that the shell made several words of.
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
        if "Unrecognized options" in said.getvalue():
            _refuse_expanded(given)
        print(said.getvalue(), end="", file=sys.stderr)
        raise


def _refuse_expanded(given: Sequence[str]) -> None:
    """Raises where several words beside each other are .tar files, as a shell makes them of braces and stars."""
    for is_shard, group in itertools.groupby(enumerate(given), key=lambda item: item[1].endswith(".tar")):
        members = list(group)
        if not is_shard or len(members) < 2:
            continue
        first, last = members[0][1], members[-1][1]
        before = given[members[0][0] - 1] if members[0][0] else ""
        flag = f"{before} " if before.startswith("--") else ""
        raise ConfigError(
            f"{before if flag else 'this command'} takes one word and got {len(members)}, {first} to {last}; quote the "
            f"braces or stars, so that the shell leaves them alone: {flag}'{_pattern(first, last, len(members))}'"
        )


def _pattern(first: str, last: str, number: int) -> str:
    """How to write the files in one word: a range where the names count up, else a star in the place that differs."""
    if first == last:
        return first
    start = _num_common(first, last)
    end = _num_common(first[start:][::-1], last[start:][::-1])
    while start and first[start - 1].isdigit():
        start -= 1
    while end and first[-end].isdigit():
        end -= 1
    low, high = first[start : len(first) - end], last[start : len(last) - end]
    counts = low.isdigit() and high.isdigit() and int(high) - int(low) + 1 == number
    return f"{first[:start]}{{{low}..{high}}}{first[-end:]}" if counts else f"{first[:start]}*{first[-end:]}"


def _num_common(one: str, other: str) -> int:
    """Characters that both begin with."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
