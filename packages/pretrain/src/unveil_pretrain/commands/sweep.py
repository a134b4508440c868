"""`pretrain sweep PLAN.json --out DIR ...`: run the cells of a plan, or look at them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from unveil_backbones.redaction import has_secret, redact

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.errors import SweepError
from unveil_pretrain.planning.plans import Plan, read_plan
from unveil_pretrain.sweeping.driver import looked_up, run_local, run_slurm
from unveil_pretrain.sweeping.executors import ExecutorName, Resources, cell_job
from unveil_pretrain.sweeping.folder import CellState, Data, SweepFolder, absolute_places
from unveil_pretrain.sweeping.table import read_rows, table, write_summary

__all__ = ["SweepCommand", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepCommand:
    """Run the cells of a plan. The same command again continues: finished cells stay, the others are tried again."""

    plan: Annotated[Path | None, tyro.conf.Positional] = None
    """The plan, from `pretrain plan --out` or by hand; may be left out once the sweep has started."""
    out: Path
    """Folder of the sweep: plan.json, sweep.jsonl, summary.csv, cells/NAME for each run, logs/NAME.log."""
    train_data: str = ""
    """Training data of all cells, as `pretrain mim` takes it; may be left out once the sweep has started."""
    val_data: str = ""
    """Validation data of all cells; likewise."""
    train_lists: Path | None = None
    """Folder of `pretrain subset`: the fraction 0.1 is the list S10.txt. Without it fractions are seeded subsets."""
    executor: ExecutorName = "local"
    """local: processes of this machine, waited for. slurm: jobs of a cluster; the command returns at once."""
    jobs: int = 1
    """Cells that run at the same time."""
    dry_run: bool = False
    """Print the command of every cell and start none."""
    status: bool = False
    """Print where every cell stands and start none."""
    resources: Resources
    """What each cell gets."""


def run(given: Sequence[str]) -> int:
    """Run, print or look at a sweep; 1 if a cell failed."""
    default = SweepCommand(out=tyro.MISSING, resources=Resources())
    command = parse(SweepCommand, given, prog="pretrain sweep", default=default)
    if command.jobs < 1:
        raise SweepError(f"--jobs is {command.jobs}; give at least 1")
    folder = SweepFolder(command.out)
    if command.status:
        return _show(folder, looked_up(folder, folder.states(), _log))
    plan = folder.plan() if command.plan is None else read_plan(command.plan)
    data = _data(folder, command)
    if command.train_lists is not None:
        missing = [file for cell in plan.cells if not (file := cell.list_file(command.train_lists)).is_file()]
        if missing:
            raise SweepError(
                f"{missing[0]} does not exist; write it with `pretrain subset` for the fractions of the plan"
            )
    if command.dry_run:
        return _print_commands(folder, plan, data, command)
    folder.claim(plan, data)
    if command.executor == "slurm":
        states = run_slurm(folder, command.resources, at_once=command.jobs, log=_log)
    else:
        states = run_local(folder, command.resources, at_once=command.jobs, log=_log)
    return _show(folder, states)


def _data(folder: SweepFolder, command: SweepCommand) -> Data:
    """The data of the sweep, counted; as they were at its start if the command names none.

    Raises:
        SweepError: only one of the two is named, or none at the start.
        DataError: they cannot be read.
    """
    given = (command.train_data, command.val_data)
    if not any(given):
        return folder.data()
    if not all(given):
        raise SweepError("pretrain sweep needs --train-data and --val-data; give both")
    for flag, place in (("--train-data", command.train_data), ("--val-data", command.val_data)):
        if place and has_secret(place):
            raise SweepError(
                f"{flag} {redact(place)} holds a secret, and a sweep writes its commands into files; leave it out of "
                "the URL and give it by the environment, as fsspec reads it (FSSPEC_S3_KEY, AWS_SECRET_ACCESS_KEY, ...)"
            )
    from unveil_pretrain.data.opening import open_samples  # torch is not needed to look at a sweep

    samples = open_samples(command.train_data)
    return Data(
        train_data=absolute_places(command.train_data),
        val_data=absolute_places(command.val_data),
        num_images=len(samples),
        data_hash=samples.content_hash,
        lists=None if command.train_lists is None else str(command.train_lists),
    )


def _print_commands(folder: SweepFolder, plan: Plan, data: Data, command: SweepCommand) -> int:
    for cell in plan.cells:
        print(" ".join(cell_job(folder, cell, data, command.resources, threads=0).command))
    return 0


def _show(folder: SweepFolder, states: Sequence[CellState]) -> int:
    """The table on stdout, summary.csv in the folder; 1 if a cell failed or broke off."""
    rows = read_rows(folder, states)
    file = write_summary(folder, rows)
    print(table(rows), end="")
    counts = {state.state: 0 for state in states}
    for state in states:
        counts[state.state] += 1
    print(f"{', '.join(f'{count} {state}' for state, count in counts.items())}; {file}")
    return 1 if counts.get("failed") else 0


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
