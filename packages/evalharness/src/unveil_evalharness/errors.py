"""Errors of the harness: what was given, what is allowed, what to do next, in one line."""

__all__ = [
    "CheckpointInputError",
    "DataError",
    "DependencyError",
    "GateError",
    "HarnessError",
    "NotComparableError",
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


class UsageError(HarnessError):
    """An option with a value it cannot have."""


class UnknownTaskError(HarnessError):
    """A task name that the harness does not have."""


class UnknownSuiteError(HarnessError):
    """A suite name that a task does not have."""


class CheckpointInputError(HarnessError):
    """A checkpoint that is missing, damaged, too new or of another architecture."""


class DataError(HarnessError):
    """Evaluation data that is missing or damaged; names the file (and the record in it)."""


class DependencyError(HarnessError):
    """An optional dependency that a task needs and that cannot be imported."""


class GateError(HarnessError):
    """The encoder inside a task's model is not the encoder of the checkpoint (coverage or forward parity)."""


class ProtocolError(HarnessError):
    """A protocol that cannot be fingerprinted or holds values that contradict each other."""


class OutputError(HarnessError):
    """An output folder that cannot be written."""


class ResultsError(HarnessError):
    """A ``results.jsonl`` that this version cannot read."""


class NotComparableError(HarnessError):
    """Numbers that may not be put side by side; names the first field that differs."""


def one_line(error: BaseException, *, limit: int = 600) -> str:
    """An exception's message with all white space collapsed, cut at `limit` characters; its type if it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
