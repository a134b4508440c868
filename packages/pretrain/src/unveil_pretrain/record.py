"""The folder of a run: run.json, {metrics,val,cost,spikes,skipped,reads}.jsonl, checkpoints/step_*.

run.json says what the run is; a folder takes no other run. The .jsonl files are appended line by line and cut back
to the checkpoint when a run continues, so that no step appears twice.
"""

import errno
import fcntl
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from unveil_backbones.limits import parse_json
from unveil_backbones.manifest import MANIFEST_NAME, ValPoint
from unveil_backbones.redaction import redact, redact_command, redact_record

from unveil_pretrain.config import first_difference
from unveil_pretrain.errors import OutputError, ResumeError
from unveil_pretrain.history import LOGS, read_log, read_rows
from unveil_pretrain.loggers import LoggerName, Loggers, open_loggers
from unveil_pretrain.row_checks import is_number
from unveil_pretrain.train_state import TRAIN_STATE
from unveil_pretrain.val_table import rewind_tables

__all__ = ["RunFolder", "about_run", "git_commit", "package_versions"]

_RUN = "run.json"
_METRICS = "metrics.jsonl"
_VAL = "val.jsonl"
_COST = "cost.jsonl"
_SPIKES = "spikes.jsonl"
_SKIPPED = "skipped.jsonl"
_READS = "reads.jsonl"
_LOCK = ".lock"
_FAILURE = "failure.json"
# A path has lost the second slash of s3://.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


class RunFolder:
    """Reads and writes the files of one run.

    Every method that writes raises OutputError when the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is created before `claim`."""
        self.path = path
        self.loggers = Loggers()

    def claim(self, identity: Mapping[str, object], about: Mapping[str, object]) -> None:
        """Make the folder the home of this run, or check that it is.

        Args:
            identity: What defines the run; must be the same whenever it continues.
            about: What else to record when it is started: command, versions, places.

        Raises:
            ResumeError: the folder holds another run; the first differing setting is named.
            OutputError: the folder holds something else, or cannot be written, or is a URL.
        """
        if _URL.match(str(self.path)):
            raise OutputError(f"{self.path} is a URL; a run writes to a folder of this machine: give one, or mount it")
        file = self.path / _RUN
        if file.exists():
            difference = first_difference(json.loads(json.dumps(identity)), self._recorded_identity(file))
            if difference is not None:
                raise ResumeError(
                    f"{self.path} holds a run with other settings: {difference}; "
                    "repeat the command it was started with, or give a new --out"
                )
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            strangers = sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))
            if strangers:
                raise OutputError(f"{self.path} is not empty (it holds {strangers[0]}); give a new or an empty --out")
            _write_atomically(file, json.dumps({**about, "identity": identity}, indent=1) + "\n")
        except OSError as error:
            raise _not_writable(self.path, error) from error

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.path / "checkpoints" / f"step_{step:08d}"

    def last_checkpoint(self) -> Path | None:
        """The checkpoint directory of the highest step, or None."""
        return next(iter(self.checkpoints()), None)

    def checkpoints(self) -> list[Path]:
        """All checkpoint directories, from the highest step to the lowest."""
        found = [
            entry
            for entry in (self.path / "checkpoints").glob("step_*")
            if re.fullmatch(r"step_\d+", entry.name) and (entry / MANIFEST_NAME).is_file()
        ]
        return sorted(found, key=lambda entry: int(entry.name.removeprefix("step_")), reverse=True)

    def drop_old_train_states(self) -> None:
        """Keep the training states of the newest two checkpoints, so that damage to one does not end the run.

        Weights are worth keeping, older optimisers are not.
        """
        newest = self.checkpoints()[:2]
        for entry in (self.path / "checkpoints").glob(f"step_*/{TRAIN_STATE}"):
            if entry.parent not in newest:
                shutil.rmtree(entry)

    def rewind(self, step: int) -> list[str]:
        """Remove what was recorded after `step`: the run continues there.

        Returns:
            What a person should know: which lines of a log could not be read and are left out. The file as it was is
            kept beside it.

        Raises:
            ResumeError: a file that is no log is damaged, or one cannot be read.
        """
        rewind_tables(self.path, step)
        said = list[str]()
        for name in (_METRICS, _VAL, _COST, _SPIKES, _SKIPPED, _READS):
            file = self.path / name
            if not os.path.lexists(file):
                continue
            rows, problems = _whole_lines_of_log(file) if name in LOGS else (_whole_lines(file), [])
            try:
                if problems:
                    said.append(
                        f"left out what cannot be read of {name}, {len(problems)} of its lines ({problems[0]}); "
                        f"{_set_aside(file)}"
                    )
                kept = (row for row in rows if row["step"] <= step)
                _write_atomically(file, "".join(json.dumps(row) + "\n" for row in kept))
            except OSError as error:
                raise _not_writable(file, error) from error
        return said

    def add_metrics(self, row: Mapping[str, object]) -> None:
        """Append one training step to metrics.jsonl."""
        self._append(_METRICS, row)
        self.loggers.train_row(row)

    def add_cost_basis(self, row: Mapping[str, object]) -> None:
        """Append what the costs of the run are computed from, from here on, to cost.jsonl."""
        self._append(_COST, row)

    def add_validation(self, row: Mapping[str, object]) -> None:
        """Append one validation to val.jsonl."""
        self._append(_VAL, row)
        self.loggers.val_row(row)

    def add_spike(self, row: Mapping[str, object]) -> None:
        """Append a step whose loss leapt to spikes.jsonl."""
        self._append(_SPIKES, row)

    def add_skipped(self, step: int, messages: Sequence[str]) -> None:
        """Append what was wrong with the samples that were replaced in a step to skipped.jsonl."""
        for message in messages:
            self._append(_SKIPPED, {"step": step, "what": redact(message)})

    def add_reads(self, row: Mapping[str, object]) -> None:
        """Append to reads.jsonl which reads of a step failed and were tried again."""
        self._append(_READS, redact_record(row))

    def num_skipped(self) -> int:
        """Samples that were replaced so far, each time counted."""
        return len(_whole_lines(self.path / _SKIPPED))

    def losses(self) -> list[float]:
        """Training losses so far, in the order of the steps."""
        rows = _whole_lines(self.path / _METRICS)
        return [row["loss"] for row in rows if row.get("loss") is not None]

    def caption_changes(self) -> dict[str, int]:
        """What was done to captions so far, by the names that metrics.jsonl has for it ("captions_cut")."""
        file, totals = self.path / _METRICS, dict[str, int]()
        for row in _whole_lines(file):
            for name, count in row.items():
                if name.startswith("captions_") and is_number(count, whole=True):
                    totals[name] = totals.get(name, 0) + int(count)
        return totals

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder for the length of a `with`; a kill gives it back.

        Raises:
            OutputError: another process is at work in the folder.
        """
        try:
            stream = (self.path / _LOCK).open("a", encoding="utf-8")
        except OSError as error:
            raise _not_writable(self.path, error) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise OutputError(
                        f"{self.path} cannot be locked ({error.strerror}); give an --out on a file system with locks"
                    ) from error
                raise OutputError(
                    f"another process is running in {self.path}; wait for it or stop it, or give another --out"
                ) from error
            yield

    @contextmanager
    def shown_by(self, names: Sequence[LoggerName], *, config: Mapping[str, object], start_step: int) -> Iterator[None]:
        """Send the rows of training and validation to these loggers too, for the length of a `with`.

        Raises:
            ConfigError: a logger's package is not installed.
        """
        self.loggers = open_loggers(names, run=self.path, config=config, start_step=start_step)
        try:
            yield
        finally:
            self.loggers.close()
            self.loggers = Loggers()

    def remove_unfinished(self) -> None:
        """Remove what a killed process left of a checkpoint it was writing; only under `locked`."""
        for entry in (self.path / "checkpoints").glob(".step_*.tmp"):
            shutil.rmtree(entry)

    def write_failure(self, record: Mapping[str, object]) -> Path:
        """Write what is needed to replay a failed step; gives the file."""
        file = self.path / _FAILURE
        try:
            _write_atomically(file, json.dumps(record, indent=1) + "\n")
        except OSError as error:
            raise _not_writable(file, error) from error
        return file

    def validation_curve(self) -> tuple[ValPoint, ...]:
        """The points of val.jsonl."""
        file = self.path / _VAL
        rows = _whole_lines(file)
        return tuple(
            ValPoint(
                step=row["step"],
                loss=row["loss"],
                standard_error=row["standard_error"],
                num_images=row["num_images"],
                train_loss=row["train_loss"],
            )
            for row in rows
        )

    def _append(self, name: str, row: Mapping[str, object]) -> None:
        file = self.path / name
        try:
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row, allow_nan=False) + "\n")
        except OSError as error:
            raise _not_writable(file, error) from error

    def _recorded_identity(self, file: Path) -> dict[str, object]:
        try:
            identity = parse_json(file.read_text(encoding="utf-8"))["identity"]
            if not isinstance(identity, dict):
                raise TypeError("its identity is no object")
            return identity
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResumeError(f"{file} cannot be read ({error!r}); restore it, or give a new --out") from error


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that a loss may depend on."""
    packages = ("unveil-pretrain", "unveil-backbones", "unveil-masking", "torch", "timm", "numpy", "pillow")
    return {"python": sys.version.split()[0], **{name: version(name) for name in packages}}


def git_commit() -> str | None:
    """The commit this package is checked out at, or None where it is installed from a wheel."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name],
            cwd=Path(__file__).parent,
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):  # no git on this machine
        return None
    # Inside a virtual environment in somebody's repository, HEAD would be that repository's commit.
    return found.stdout.strip() if found.returncode == 0 and tracked.returncode == 0 else None


def about_run(
    *,
    command: Sequence[str],
    train_data: str,
    val_data: str,
    train_list: Path | None = None,
    initial: Path | None = None,
) -> dict[str, object]:
    """What run.json records besides the identity of the run."""
    return {
        "format_version": 1,
        "command": redact_command(command),
        "train_data": redact(train_data),
        "val_data": redact(val_data),
        "train_list": None if train_list is None else str(train_list),
        "initial": None if initial is None else str(initial.absolute()),
        "versions": package_versions(),
        "git_commit": git_commit(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _whole_lines(file: Path) -> list[dict]:
    """The rows of a .jsonl file; a last line without an end is the trace of a kill and is left out."""
    try:
        return read_rows(file)
    except OutputError as error:
        raise ResumeError(f"{error}, or give a new --out") from error


def _whole_lines_of_log(file: Path) -> tuple[list[dict], list[str]]:
    """The rows of one of `LOGS`, and what is wrong with the lines that are none."""
    try:
        return read_log(file)
    except OutputError as error:
        raise ResumeError(f"{error}, or give a new --out") from error


def _set_aside(file: Path) -> str:
    """Copy a file to where nothing reads it, and say where that is."""
    places = (file.with_name(f"{file.name}.damaged{number}") for number in itertools.count(1))
    place = next(place for place in places if not os.path.lexists(place))
    shutil.copyfile(file, place)
    return f"the file as it was is {place.name}"


def _write_atomically(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def _not_writable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path} ({error.strerror or error}); free some space or give another --out")
