"""The package's errors: every message says what was given, what is allowed and what to do next."""

from typing import Final

__all__ = [
    "ONE_PROCESS",
    "ConfigError",
    "DataError",
    "DivergedError",
    "MemoryLimitError",
    "MissingExtraError",
    "OutputError",
    "PlanError",
    "PretrainError",
    "ProcessLostError",
    "ResumeError",
    "SourceError",
    "SweepError",
]

ONE_PROCESS: Final = "raised by this process, while others may have none"
"""Note on errors that each process of a run has to say itself."""


class PretrainError(ValueError):
    """Base of everything this package raises on purpose."""


class ConfigError(PretrainError):
    """A setting is outside what is allowed, or two settings contradict each other."""


class DataError(PretrainError):
    """A shard, a sample or a data folder cannot be used as it is."""


class SourceError(DataError):
    """A disk or store does not answer, or refuses: nothing is known to be wrong with the data, so none is left out."""


class DivergedError(PretrainError):
    """Training produced a loss that is not finite."""


class MemoryLimitError(PretrainError):
    """A step needs more memory than there is."""


class MissingExtraError(PretrainError):
    """A package that only some data or runs need is not installed; the message gives the install line."""


class OutputError(PretrainError):
    """The output folder cannot be written, or holds something else."""


class ResumeError(PretrainError):
    """A run in the output folder cannot be continued with the given settings."""


class PlanError(PretrainError):
    """A plan cannot be read or made: a cell, an axis or a budget is outside what is allowed."""


class SweepError(PretrainError):
    """A sweep cannot run: its folder belongs to another one, or what it needs is missing."""


class ProcessLostError(PretrainError):
    """Another process of the run has ended, or the connection to it broke."""
