"""Feeds a parser thousands of damaged inputs; it may give a value or one of its package's named errors, nothing else.

Hypothesis chooses the seeds, derandomised, so that a run on one machine is a run on all. Each seed makes a batch of
inputs, since choosing costs more than most of these parsers.
"""

import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet
from good_files import Specimens
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from unveil_backbones.errors import BackboneError
from unveil_evalharness.errors import HarnessError
from unveil_masking import MaskingError
from unveil_pretrain.errors import PretrainError

__all__ = [
    "NAMED",
    "NUM_FAST",
    "NUM_SLOW",
    "Parser",
    "Place",
    "bounded",
    "feed",
    "file_parser",
    "fuzz",
    "in_parts",
    "tree_of",
]

NUM_FAST = 100
"""Inputs of each parser in a default run of the tests."""
NUM_SLOW = 10_000
"""Inputs of each parser in a run of those marked `slow`."""
NAMED = (MaskingError, BackboneError, PretrainError, HarnessError)
"""What a person is meant to see."""
_BATCH = 20
_SECONDS = 120
_ROOM = 3 * 2**30 + 8 * 2**26 * (os.cpu_count() or 1)
"""Address space. The allocator of the C library reserves up to eight areas of 64 MiB for each core when many threads
ask for memory, used or not."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a parser's files are."""

    good: Specimens
    """Whole specimens, not to be changed."""
    scratch: Path
    """An empty folder."""


@dataclass(frozen=True, kw_only=True)
class Parser:
    """Something that reads what a person can hand over."""

    make: Callable[[Random], Any]
    """Makes one damaged input."""
    read: Callable[[Any], object]
    """Reads it."""
    allowed: tuple[type[BaseException], ...] = NAMED
    """Errors it may raise."""
    num_fast: int = NUM_FAST
    """Inputs in the default run; fewer where reading takes long."""
    at_once: int = 1
    """Inputs that `make` makes together, where reading many takes no longer than reading one."""


def file_parser(
    file: Path,
    make: Callable[[Random], bytes],
    read: Callable[[], object],
    *,
    num_fast: int = NUM_FAST,
    allowed: tuple[type[BaseException], ...] = NAMED,
) -> Parser:
    """A parser of one file: every input is written there first."""

    def written(content: bytes) -> object:
        file.write_bytes(content)
        return read()

    return Parser(make=make, read=written, num_fast=num_fast, allowed=allowed)


def in_parts(names: Iterable[str], num_parts: Mapping[str, int]) -> list[ParameterSet]:
    """What to call a slow test with: name, part and number of parts, as many as `num_parts` says, otherwise one."""
    return [
        pytest.param(name, part, num, id=name if num == 1 else f"{name}-{part + 1}-of-{num}")
        for name in names
        for num in (num_parts.get(name, 1),)
        for part in range(num)
    ]


def fuzz(parser: Parser, num_inputs: int, *, part: int = 0) -> None:
    """Feed the parser so many inputs; other ones in each part.

    Raises:
        AssertionError: it raised something else, or took too long or too much memory; shows the input.
    """

    num_makes = max(1, num_inputs // parser.at_once)
    size = min(_BATCH, num_makes)

    @settings(
        max_examples=num_makes // size,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # a smaller seed makes no smaller input
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**64 - 1))
    def batch(seed: int) -> None:
        random = Random(seed if part == 0 else f"{seed} {part}")
        for _ in range(size):
            feed(parser, parser.make(random))

    with bounded(_SECONDS * max(1, num_inputs // 200)):
        batch()


def feed(parser: Parser, given_input: Any) -> None:
    """Feed the parser one input.

    Raises:
        AssertionError: it raised what it may not, or said nothing; shows the input.
    """
    try:
        parser.read(given_input)
    except parser.allowed as error:
        message = str(error)
        if not message.strip():
            raise AssertionError(f"{type(error).__name__} says nothing about {_shown(given_input)}") from error
        if isinstance(error, HarnessError) and "\n" in message:
            raise AssertionError(f"more than one line: {message!r} about {_shown(given_input)}") from error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise AssertionError(f"{type(error).__name__}: {str(error)[:500]}\ninput: {_shown(given_input)}") from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 2000 else f"{text[:1500]} … {text[-400:]}"


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Neither a hang nor unbounded memory: a time limit, and `_ROOM` of address space above what there is now."""

    def too_slow(number: int, frame: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before, (soft, hard) = signal.signal(signal.SIGALRM, too_slow), resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again and again: Hypothesis repeats what failed
    resource.setrlimit(resource.RLIMIT_AS, (size + _ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tree_of(file: Path) -> Any:
    """The JSON value in a file; the list of its lines' values for a .jsonl."""
    import json

    text = file.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else json.loads(text)
