"""The folder of a sweep, and what it says about each cell.

plan.json and sweep.json say what the sweep is; sweep.jsonl is its diary; cells/NAME are the folders of the runs,
logs/NAME.log what they said, and attempts/NAME.jsonl when they were started and ended; summary.csv is the table of
results. The state of a cell is read from these files alone, so that a sweep can be killed, looked at and started again
from anywhere.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from unveil_backbones.limits import parse_json

from unveil_pretrain.cost import read_tail
from unveil_pretrain.errors import OutputError, SweepError
from unveil_pretrain.planning.plans import Cell, Plan, read_plan
from unveil_pretrain.sweeping.job import is_locked, outcome_file
from unveil_pretrain.sweeping.records import checked_data, event_of, outcome_of

__all__ = ["CellState", "Data", "State", "SweepFolder", "absolute_places"]

State = Literal["done", "running", "submitted", "failed", "interrupted", "waiting"]
"""Interrupted cells have steps and no process; submitted ones are in the hands of a cluster."""

_PLAN, _ABOUT, _DIARY = "plan.json", "sweep.json", "sweep.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """The data of all cells."""

    train_data: str
    """Training data, as `pretrain mim` takes it."""
    val_data: str
    """Validation data."""
    num_images: int
    """Training images."""
    data_hash: str
    """Hash of their content."""
    lists: str | None = None
    """Folder of `pretrain subset`, whose lists are the fractions; without it they are seeded subsets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellState:
    """Where a cell stands."""

    cell: Cell
    state: State
    step: int
    """Steps recorded."""
    job: str | None
    """The job that was last started for it."""
    reason: str | None
    """Why it failed, or is not in SLURM's hands any more, in one line."""


class SweepFolder:
    """Reads and writes the files of one sweep."""

    def __init__(self, path: Path) -> None:
        """Name the folder; nothing is created before `claim`."""
        self.path = path

    def run_path(self, cell: Cell) -> Path:
        """The folder of a cell's run."""
        return self.path / "cells" / cell.name

    def plan(self) -> Plan:
        """The plan of this sweep.

        Raises:
            SweepError: there is no sweep in this folder.
            PlanError: plan.json is damaged.
        """
        if not (self.path / _PLAN).is_file():
            raise SweepError(
                f"{self.path} holds no sweep; start one with `pretrain sweep PLAN.json --out {self.path} ...`"
            )
        return read_plan(self.path / _PLAN)

    def data(self) -> Data:
        """The data of this sweep.

        Raises:
            SweepError: sweep.json is missing or damaged.
        """
        file = self.path / _ABOUT
        try:
            return Data(**checked_data(parse_json(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            raise SweepError(f"{file} cannot be read ({error}); start the sweep again in a new --out") from error

    def claim(self, plan: Plan, data: Data) -> None:
        """Make the folder the home of this sweep, or check that it is; cells may be added to a plan later.

        Raises:
            SweepError: the folder holds something else, a sweep of other data, or a cell with other settings.
            OutputError: it cannot be written.
        """
        if (self.path / _PLAN).exists():
            self._check_same(plan, data)
        elif self.path.is_dir() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise SweepError(f"{self.path} is not empty and holds no sweep; give a new or an empty --out")
        try:
            for name in ("cells", "logs", "locks", "outcomes", "attempts", "submitit"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            (self.path / _ABOUT).write_text(json.dumps(asdict(data), indent=1) + "\n", encoding="utf-8")
            temporary = self.path / f".{_PLAN}.tmp"
            temporary.write_text(plan.to_json(), encoding="utf-8")
            temporary.replace(self.path / _PLAN)
        except OSError as error:
            raise OutputError(f"cannot write {self.path} ({error.strerror or error}); give another --out") from error

    def note(self, event: str, cell: Cell, *, job: str | None = None, reason: str | None = None) -> None:
        """Add a line to the diary."""
        row = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, "cell": cell.name}
        row |= {"job": job} if job is not None else {}
        row |= {"reason": reason} if reason is not None else {}
        try:
            with (self.path / _DIARY).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path / _DIARY} ({error.strerror or error}); free some space"
            ) from error

    def forget_outcome(self, cell: Cell) -> None:
        """Before another attempt: the outcome of the last one is history, kept in the diary."""
        outcome_file(self.path, cell.name).unlink(missing_ok=True)

    def states(self) -> list[CellState]:
        """Where every cell stands now, in the order of the plan."""
        diary = self._diary()
        return [self.state(cell, diary) for cell in self.plan().cells]

    def state(self, cell: Cell, diary: Mapping[str, Mapping[str, str]] | None = None) -> CellState:
        """Where one cell stands now."""
        last = (self._diary() if diary is None else diary).get(cell.name, {})
        run = self.run_path(cell)
        rows = read_tail(run / "metrics.jsonl")
        step = int(str(rows[-1]["step"])) if rows else 0
        outcome = outcome_of(self.path, cell.name)
        reason: str | None = None
        if (run / "checkpoints" / f"step_{cell.steps:08d}" / "manifest.json").is_file():
            state: State = "done"
        elif is_locked(self.path, cell.name):
            state = "running"
        elif outcome is not None and outcome["code"] != 0 and not outcome.get("stopped"):
            state, reason = "failed", outcome["reason"]
        elif last.get("event") == "failed":
            state, reason = "failed", last.get("reason")
        elif last.get("event") == "submitted":
            state = "submitted"
        else:
            state = "interrupted" if step else "waiting"
        return CellState(cell=cell, state=state, step=step, job=last.get("job"), reason=reason)

    def _diary(self) -> dict[str, dict[str, str]]:
        """The last event of each cell, with its last job."""
        last: dict[str, dict[str, str]] = {}
        file = self.path / _DIARY
        for line in file.read_bytes().split(b"\n")[:-1] if file.exists() else ():
            row = event_of(line, file)
            job = last.get(row["cell"], {}).get("job")
            last[row["cell"]] = ({"job": job} if job is not None else {}) | row
        return last

    def _check_same(self, plan: Plan, data: Data) -> None:
        before = {cell.name: cell for cell in self.plan().cells}
        now = {cell.name: cell for cell in plan.cells}
        missing = [name for name in before if name not in now]
        changed = [name for name, cell in before.items() if name in now and _essence(now[name]) != _essence(cell)]
        if missing or changed:
            what = f"the plan lacks its cell {missing[0]}" if missing else f"cell {changed[0]} has other settings now"
            raise SweepError(f"{self.path} holds another sweep: {what}; give the same plan, or a new --out")
        known = self.data()
        if known.data_hash != data.data_hash:
            raise SweepError(f"{self.path} holds a sweep of other training data; give the same data, or a new --out")
        if (known.lists is None) != (data.lists is None):
            raise SweepError(f"{self.path} holds a sweep {'with' if known.lists else 'without'} lists; keep it so")


def absolute_places(text: str) -> str:
    """Data as a command line names them, for cells that start in another directory.

    Args:
        text: Paths or URLs with braces and globs, joined by `::`.
    """
    places = text.split("::")
    local = [not ("://" in place or place.startswith("{/")) for place in places]
    # Links stay links: they may lead elsewhere on another node.
    here = [os.path.abspath(place) if is_local else place for place, is_local in zip(places, local, strict=True)]  # noqa: PTH100
    return "::".join(here)


def _essence(cell: Cell) -> dict[str, object]:
    """What a cell is, without what was predicted about it."""
    predicted = ("flops", "seconds", "verdict")
    return {name: value for name, value in asdict(cell).items() if name not in predicted}
