"""Reads that are tried again: how often, after what wait, and a note of each so that none is silent.

The wait grows by two with every try and is spread by a factor that depends on seed, sample and try alone. What is read
does not depend on how often it had to be tried.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, TypeVar

from unveil_pretrain.data.faults import SHORT_READ, ChangedError, cause_of, is_denial
from unveil_pretrain.data.streams import RETRY_STREAM, draws
from unveil_pretrain.errors import ConfigError, DataError, SourceError

__all__ = ["ReadPolicy", "Retry", "count_causes", "note_retries", "noting_retries", "with_retries"]

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadPolicy:
    """How long and how often to try before a read has failed; no sample depends on it."""

    timeout: float = 60.0
    """Seconds that one try may take."""
    tries: int = 5
    """Tries before a read has failed; 1 for none after the first."""
    first_wait: float = 0.5
    """Seconds between the first try and the second; twice as long each time after that."""
    longest_wait: float = 20.0
    """Seconds between two tries at most."""
    seed: int = 0
    """Spreads the waits, so that many readers do not come back at once."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout > 0) or self.tries < 1:
            raise ConfigError(
                f"read_timeout={self.timeout:g}, read_tries={self.tries}; give seconds above 0 and at least one try"
            )
        if min(self.first_wait, self.longest_wait) < 0:
            raise ConfigError(f"waits of {self.first_wait:g} and {self.longest_wait:g} s; give 0 or more")

    @property
    def patience(self) -> float:
        """Seconds to wait for a batch of many reads before whoever makes it counts as stuck."""
        return 10 * self.timeout

    def wait(self, key: int, attempt: int) -> float:
        """Seconds to wait after try `attempt` (from 1) of what `key` names: between half and all of the full wait."""
        full = min(self.longest_wait, self.first_wait * 2.0 ** (attempt - 1))
        return full * (0.5 + 0.5 * float(draws(self.seed, attempt, key, RETRY_STREAM, 1)[0]))


@dataclass(frozen=True, slots=True)
class Retry:
    """One try that failed and was followed by another, or was the last."""

    source: str
    """Shard, file or object."""
    cause: str
    """In a few words, as "503 SlowDown"."""
    wait: float
    """Seconds until the next try; 0 after the last."""


# Who listens is the caller's matter, many frames above the read; threads and processes hand their notes on.
_notes: ContextVar[list[Retry] | None] = ContextVar("retries", default=None)


@contextmanager
def noting_retries(into: list[Retry] | None = None) -> Iterator[list[Retry]]:
    """A list, new or given, that fills with what is tried again inside the `with`, in this thread."""
    found = [] if into is None else into
    token = _notes.set(found)
    try:
        yield found
    finally:
        _notes.reset(token)


def note_retries(retries: Sequence[Retry]) -> None:
    """Hand on what another thread or process noted."""
    listener = _notes.get()
    if listener is not None:
        listener.extend(retries)


def count_causes(retries: Sequence[Retry]) -> dict[str, int]:
    """How often each cause, the most frequent first."""
    return dict(Counter(retry.cause for retry in retries).most_common())


def with_retries(
    read: Callable[[], _Result], policy: ReadPolicy, *, what: str, key: int, kind: Literal["shard", "file"] = "shard"
) -> _Result:
    """What `read` returns, tried again while what failed may pass.

    Args:
        read: One request; raises what its file system raises.
        policy: How often, and after what wait.
        what: The object, for messages.
        key: A number of what is read, which spreads the waits.
        kind: What it is, for messages.

    Raises:
        SourceError: access is denied, or every try failed by something that may pass: the object may be intact.
        DataError: the object is gone, is another one, is too short, or cannot be read.
    """
    causes: list[str] = []
    while True:
        try:
            return read()
        except Exception as error:  # file systems raise what their libraries do, far more than OSError
            cause = cause_of(error)
            if cause is None:
                raise _permanent(error, what, kind) from error
            causes.append(cause)
            wait = policy.wait(key, len(causes)) if len(causes) < policy.tries else 0.0
            note_retries([Retry(what, cause, wait)])
            if len(causes) == policy.tries:
                raise _exhausted(causes, what, policy) from error
        time.sleep(wait)


def _permanent(error: Exception, what: str, kind: str) -> DataError:
    said = str(error) or type(error).__name__
    if isinstance(error, ChangedError):
        return DataError(f"{what}: the {kind} changed since it was indexed ({said}); start the run again")
    if is_denial(error):
        return SourceError(
            f"{what}: access is denied ({said}); check its permissions and your credentials (for S3: "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE)"
        )
    if isinstance(error, FileNotFoundError):
        said = f"it is gone: {said}"
    return DataError(f"{what}: the {kind} can no longer be read ({said}); restore it and start again")


def _exhausted(causes: Sequence[str], what: str, policy: ReadPolicy) -> DataError:
    counted = ", ".join(f"{cause} {count}x" for cause, count in Counter(causes).most_common())
    said = f"{what}: not read in {len(causes)} tries of at most {policy.timeout:g} s ({counted})"
    if causes[-1] == SHORT_READ:  # what comes is too short each time: so is the object
        return DataError(f"{said}; the object is shorter than its store or index says: copy or write it again")
    return SourceError(
        f"{said}; check the store, the network and the endpoint, or allow more by --read-timeout and --read-tries, "
        "and repeat the command"
    )
