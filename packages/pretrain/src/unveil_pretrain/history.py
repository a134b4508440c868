"""Reading the files of a run that may be running: rows that are half-written are no rows yet. No torch here."""

import errno
import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from unveil_backbones.limits import parse_json
from unveil_backbones.places import is_folder

from unveil_pretrain.errors import OutputError
from unveil_pretrain.row_checks import checked_row, is_number, whole_rows

__all__ = ["LOGS", "RunHistory", "read_history", "read_log", "read_rows"]

LOGS: Final = ("metrics.jsonl", "spikes.jsonl", "reads.jsonl")
"""Files that say what happened and from which no result is computed: what cannot be read of them is said and left out,
and a run goes on. A line of the others, from which curves, costs and limits follow, has to be repaired by a person."""


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; none where it does not exist. A last line without an end is left out.

    Raises:
        OutputError: the file cannot be read, or holds a line that is no row of such a file.
    """
    return [checked_row(line, file, number) for number, line in enumerate(_lines(file), start=1)]


def read_log(file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """As `read_rows` for one of `LOGS`: the rows that are whole, and what is wrong with each of the others.

    Raises:
        OutputError: the file cannot be read.
    """
    return whole_rows(_lines(file), file)


def _lines(file: Path) -> list[bytes]:
    try:
        return file.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(f"cannot read {file} ({error.strerror or error}); check the path and permissions") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHistory:
    """What the folder of a run says of it, without its costs."""

    path: Path
    identity: Mapping[str, Any]
    """What defines the run: settings and hashes of the data."""
    metrics: Sequence[Mapping[str, Any]]
    """Rows of metrics.jsonl, a row per step."""
    validations: Sequence[Mapping[str, Any]]
    """Rows of val.jsonl."""
    num_spikes: int
    """Steps whose loss leapt."""
    num_skipped: int
    """Samples that could not be read and were replaced."""
    reads: Sequence[Mapping[str, Any]]
    """Rows of reads.jsonl: reads that failed and were tried again."""
    failure: Mapping[str, Any] | None
    """failure.json, where a step's numbers ended."""
    last_checkpoint: Path | None
    """The checkpoint from which the run would continue."""
    damaged: Sequence[str]
    """What is wrong with lines of `LOGS` that were left out."""
    alive: bool | None
    """Whether a process is at work in the folder; None where this cannot be told."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings."""
        return self.identity["config"]

    @property
    def step(self) -> int:
        """Steps done, by the last row."""
        return self.metrics[-1]["step"] if self.metrics else 0

    @property
    def state(self) -> str:
        """One of "finished", "running", "starting" (before the first step), "failed", "stopped"."""
        saved = 0 if self.last_checkpoint is None else _step_of(self.last_checkpoint)
        if saved >= self.config["steps"]:
            return "finished"
        if self.alive:
            return "running" if self.metrics else "starting"
        failed = self.failure is not None and self.failure.get("step", -1) >= self.step
        return "failed" if failed else "stopped"


def read_history(path: Path) -> RunHistory:
    """The history of the run in `path`, which may be running.

    Raises:
        OutputError: the folder holds no run, or a file of it cannot be read.
    """
    file = path / "run.json"
    try:
        identity = parse_json(file.read_text(encoding="utf-8"))["identity"]
        config = identity["config"]
        known = is_number(config["steps"], whole=True) and config["steps"] > 0
        known = known and isinstance(config["objective"]["name"], str) and isinstance(config["encoder"], str)
    except FileNotFoundError as error:
        what = "is no folder" if not is_folder(path) else "holds no run: there is no run.json in it"
        raise OutputError(f"{path} {what}; give the --out of a run") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{file} cannot be read as the record of a run ({error!r}); restore it") from error
    if not known:
        raise OutputError(f"{file} names no number of steps, objective or encoder; restore it")
    (metrics, bad_metrics), (spikes, bad_spikes), (reads, bad_reads) = (read_log(path / name) for name in LOGS)
    return RunHistory(
        path=path,
        identity=identity,
        metrics=metrics,
        validations=read_rows(path / "val.jsonl"),
        num_spikes=len(spikes),
        num_skipped=len(read_rows(path / "skipped.jsonl")),
        reads=reads,
        damaged=(*bad_metrics, *bad_spikes, *bad_reads),
        failure=_read_object(path / "failure.json"),
        last_checkpoint=max((path / "checkpoints").glob("step_*"), key=_step_of, default=None),
        alive=_is_alive(path / ".lock"),
    )


def _step_of(checkpoint: Path) -> int:
    digits = checkpoint.name.removeprefix("step_")
    return int(digits) if digits.isdecimal() and (checkpoint / "manifest.json").is_file() else -1


def _read_object(file: Path) -> Mapping[str, Any] | None:
    try:
        value = parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{file} cannot be read ({error}); remove it") from error
    if not isinstance(value, dict) or not is_number(value.get("step", -1)):
        raise OutputError(f"{file} is no record of a failure; remove it")
    return value


def _is_alive(lock: Path) -> bool | None:
    """A run holds its lock as long as its process lives, however it ends."""
    try:
        with lock.open("rb") as stream:
            fcntl.lockf(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        return True if error.errno in (errno.EACCES, errno.EAGAIN) and os.access(lock, os.R_OK) else None
    return False
