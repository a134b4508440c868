"""Errors of the harness: what was given, what is allowed, what to do next, in one line."""

from unveil_backbones.redaction import redact
from unveil_backbones.terminal import visible

__all__ = [
    "BatchTooLargeError",
    "CheckpointInputError",
    "DataError",
    "DependencyError",
    "DivergedError",
    "ForeignCheckpointError",
    "GateError",
    "GateFileError",
    "HarnessError",
    "NotComparableError",
    "OutOfMemoryError",
    "OutputError",
    "ProtocolError",
    "ResultsError",
    "UnknownSuiteError",
    "UnknownTaskError",
    "UsageError",
    "one_line",
]


class HarnessError(ValueError):
    """Base of every error a user of the harness can cause; its text is one line."""

    def __str__(self) -> str:
        # What a library says, and names that a damaged file holds, may have several lines.
        return " ".join(super().__str__().splitlines())


class UsageError(HarnessError):
    """An option with a value it cannot have."""


class UnknownTaskError(HarnessError):
    """A task name that the harness does not have."""


class UnknownSuiteError(HarnessError):
    """A suite name that a task does not have."""


class CheckpointInputError(HarnessError):
    """A checkpoint that is missing, damaged, too new or of another architecture."""


class ForeignCheckpointError(CheckpointInputError):
    """A checkpoint of another program that is not on this machine, or that cannot be read whole."""


class DataError(HarnessError):
    """Evaluation data that is missing or damaged; names the file (and the record in it)."""


class DependencyError(HarnessError):
    """An optional dependency that a task needs and that cannot be imported."""


class GateError(HarnessError):
    """The encoder inside a task's model is not the encoder of the checkpoint (coverage or forward parity)."""


class DivergedError(HarnessError):
    """Training produced a loss that is not a finite number."""


class OutOfMemoryError(HarnessError):
    """A task that did not fit into the memory of the device or of the machine."""


class BatchTooLargeError(OutOfMemoryError):
    """A probe of one training pass that does not fit; says which batch would.

    Args:
        message: one line.
        fitting: images per pass that fit, a divisor of the protocol's batch; None when not even one does.
    """

    def __init__(self, message: str, *, fitting: int | None) -> None:
        super().__init__(message)
        self.fitting = fitting


class GateFileError(HarnessError):
    """A policy, baseline or ratio file of `evalharness gate` that cannot be used; names the file and the key."""


class ProtocolError(HarnessError):
    """A protocol that cannot be fingerprinted or holds values that contradict each other."""


class OutputError(HarnessError):
    """An output folder that cannot be written."""


class ResultsError(HarnessError):
    """A ``results.jsonl`` that this version cannot read."""


class NotComparableError(HarnessError):
    """Numbers that may not be put side by side; names the first field that differs."""


def one_line(error: BaseException, *, limit: int = 600) -> str:
    """An exception's message on one line, cut at `limit` characters, without secrets; its type if it has none."""
    text = visible(redact(" ".join(str(error).split()))) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
