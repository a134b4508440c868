"""Timing one candidate against its peers so that the ratio can be trusted on a machine that is not quiet.

Every round runs each candidate once, in an order that rotates from round to round, so that a slow moment of the machine
meets all of them. The ratio of a peer is the median over rounds of (peer / ours): above 1, ours is faster. Outputs are
compared before anything is timed, and different outputs end the run. A peer that is not installed stays in the report.
"""

import contextlib
import fcntl
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "FEWEST_ROUNDS",
    "Absent",
    "Candidate",
    "Clock",
    "Comparison",
    "Outcome",
    "Ratio",
    "Settings",
    "Spread",
    "Timing",
    "UnequalOutputsError",
    "compare",
    "turn",
]

FEWEST_ROUNDS = 9
"""Rounds below which a median is shown as a trial, not as a result."""


class UnequalOutputsError(Exception):
    """Two candidates do not compute the same, so their times must not be compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """Where times come from, and how to wait for a device before reading them."""

    wall: Callable[[], float] = time.perf_counter
    """Seconds that passed."""
    cpu: Callable[[], float] = time.process_time
    """Seconds of all threads of this process; the steadier figure on a shared CPU."""
    synchronise: Callable[[], None] = lambda: None
    """Waits until the device is idle."""
    forget_peak: Callable[[], None] = lambda: None
    """Starts a new measurement of peak memory."""
    peak_bytes: Callable[[], int | None] = lambda: None
    """Most bytes allocated on the device since then; None where nobody counts them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way of doing the work."""

    name: str
    """Who does it, for example "timm" or "ours"."""
    run: Callable[[], object]
    """Does the work once. Its result is thrown away."""
    flops: float | None = None
    """Floating point operations of one call, two for each multiply-add: for the utilisation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Absent:
    """A peer that could not be measured."""

    name: str
    """Who is missing."""
    reason: str
    """Why, and how to bring it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How long to measure.

    Raises:
        ValueError: No round, or a negative number.
    """

    rounds: int = FEWEST_ROUNDS
    """Rounds; in each, every candidate is timed once."""
    warm_up: int = 1
    """Rounds before those, which are not counted."""
    least_seconds: float = 0.0
    """A candidate that is quicker than this is called several times in a row, and its time is divided."""
    turn: Path | None = None
    """A file that is locked while times are taken: benchmarks compile side by side and are measured one at a time."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.warm_up < 0 or self.least_seconds < 0:
            raise ValueError(
                f"rounds {self.rounds}, warm_up {self.warm_up}, least_seconds {self.least_seconds}; at least 1, 0, 0 "
                f"are allowed; give {FEWEST_ROUNDS} rounds for a result"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One line of work, done by us and by others."""

    title: str
    """What is done, with its size."""
    ours: Candidate
    """The candidate that all others are divided by."""
    peers: Sequence[Candidate | Absent]
    """Whom to compare with."""
    differences: Callable[[], dict[str, float]]
    """Compares outputs before timing: the largest absolute difference to each present peer, by its name."""
    tolerance: float
    """The largest difference that still counts as the same output; 0 for exactly equal."""
    bars: dict[str, float] = field(default_factory=dict)
    """The ratio to reach against a peer, by its name, where there is one."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return median and quartiles (inclusive method); all three are the value if there is one."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Seconds of one call of a candidate, one entry per round."""

    name: str
    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    calls: int
    """Calls in a row per round, by which the entries are already divided."""
    peak_bytes: int | None
    """Most bytes on the device in any round."""
    flops: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """How many times faster than a peer ours is, and how far outputs are apart."""

    peer: str
    wall: Spread
    cpu: Spread
    difference: float
    bar: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one comparison gave."""

    title: str
    ours: str
    timings: tuple[Timing, ...]
    ratios: tuple[Ratio, ...]
    absent: tuple[Absent, ...]
    tolerance: float
    rounds: int


def compare(comparison: Comparison, settings: Settings, clock: Clock) -> Outcome:
    """Show that outputs are equal, then time everybody in interleaved rounds.

    Raises:
        UnequalOutputsError: A difference is above the tolerance, not a number, or missing for a present peer.
    """
    present = [peer for peer in comparison.peers if isinstance(peer, Candidate)]
    differences = comparison.differences()
    for peer in present:
        _check_difference(comparison, peer.name, differences)
    timings = _time([comparison.ours, *present], settings, clock)
    ours = timings[0]
    return Outcome(
        title=comparison.title,
        ours=ours.name,
        timings=tuple(timings),
        ratios=tuple(
            Ratio(
                peer=theirs.name,
                wall=_ratio(theirs.wall, ours.wall),
                cpu=_ratio(theirs.cpu, ours.cpu),
                difference=differences[theirs.name],
                bar=comparison.bars.get(theirs.name),
            )
            for theirs in timings[1:]
        ),
        absent=tuple(peer for peer in comparison.peers if isinstance(peer, Absent)),
        tolerance=comparison.tolerance,
        rounds=settings.rounds,
    )


def _check_difference(comparison: Comparison, peer: str, differences: dict[str, float]) -> None:
    if peer not in differences:
        raise UnequalOutputsError(
            f"{comparison.title}: nobody compared the outputs of {peer}; let `differences` return an entry for it"
        )
    if not differences[peer] <= comparison.tolerance:  # written so that NaN fails
        raise UnequalOutputsError(
            f"{comparison.title}: outputs of {comparison.ours.name} and {peer} differ by {differences[peer]:.3g}, "
            f"more than {comparison.tolerance:.3g}; make them compute the same before timing them"
        )


def _time(candidates: Sequence[Candidate], settings: Settings, clock: Clock) -> list[Timing]:
    calls = [_warm(candidate, settings, clock) for candidate in candidates]
    wall: list[list[float]] = [[] for _ in candidates]
    cpu: list[list[float]] = [[] for _ in candidates]
    peaks: list[int | None] = [None for _ in candidates]
    with turn(settings.turn):
        for number in range(settings.rounds):
            for place in range(len(candidates)):
                who = (number + place) % len(candidates)
                clock.forget_peak()
                seconds, busy = _once(candidates[who], calls[who], clock)
                wall[who].append(seconds)
                cpu[who].append(busy)
                bytes_now = clock.peak_bytes()
                peaks[who] = bytes_now if bytes_now is None else max(bytes_now, peaks[who] or 0)
    return [
        Timing(
            name=candidate.name,
            wall=tuple(wall[who]),
            cpu=tuple(cpu[who]),
            calls=calls[who],
            peak_bytes=peaks[who],
            flops=candidate.flops,
        )
        for who, candidate in enumerate(candidates)
    ]


@contextlib.contextmanager
def turn(file: Path | None) -> Iterator[None]:
    """Wait until no other benchmark that was given this file takes times; at once without one."""
    if file is None:
        yield
        return
    with file.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield  # closing the file lets go of it


def _warm(candidate: Candidate, settings: Settings, clock: Clock) -> int:
    """Run the warm-up, and return how many calls in a row last ``least_seconds``."""
    seconds = math.inf
    for _ in range(settings.warm_up):
        seconds, _ = _once(candidate, 1, clock)
    if settings.least_seconds > 0 and settings.warm_up == 0:
        seconds, _ = _once(candidate, 1, clock)
    return max(1, math.ceil(settings.least_seconds / max(seconds, 1e-7)))


def _once(candidate: Candidate, calls: int, clock: Clock) -> tuple[float, float]:
    """Return wall and CPU seconds of one of ``calls`` calls."""
    clock.synchronise()
    wall, cpu = clock.wall(), clock.cpu()
    for _ in range(calls):
        candidate.run()
    clock.synchronise()
    return (clock.wall() - wall) / calls, (clock.cpu() - cpu) / calls


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """Return the spread of their time over ours, round by round."""
    # A CPU clock with coarse ticks can read 0 for a call that hardly ran; infinity says so.
    return Spread.of([them / us if us > 0 else math.inf for them, us in zip(theirs, ours, strict=True)])
