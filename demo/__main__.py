"""`python -m demo --out DIR [--data DIR]`: data → pre-training → four tasks → correlation → report."""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from demo.cells import Cell, CellFailure, run_cells
from demo.plan import Budget, evaluation_cells, pretraining_cells
from demo.real_data import RealDataError, lay_out


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=None, help="everything it writes (default: runs/demo[-<data>])")
    parser.add_argument("--data", type=Path, default=None, help="a folder of real images instead of the digit scenes")
    parser.add_argument("--lanes", type=int, default=min(2, os.cpu_count() or 1), help="commands run at the same time")
    parser.add_argument("--num-unique", type=int, nargs="+", default=list(Budget.num_unique), help="data sizes")
    parser.add_argument("--steps", type=int, nargs="+", default=list(Budget.steps), help="SimMIM training lengths")
    parser.add_argument("--flip-steps", type=int, default=Budget.flip_steps, help="FLIP training length")
    parser.add_argument("--limit", type=int, default=None, help="evaluate this many images only (marks the results)")
    return parser.parse_args(arguments)


def _stop(failures: Sequence[CellFailure]) -> None:
    for failure in failures:
        print(f"demo: {failure.cell.name} failed: {failure.last_line} (log: {failure.cell.log})", file=sys.stderr)
    if failures:
        raise SystemExit(1)


def _prepare_data(out: Path, data: Path | None) -> Path:
    """The data root: the digit scenes, or the real sets of the given folder."""
    root = out / "data"
    if data is None:
        command = (sys.executable, "-m", "unveil_pretrain", "scenes", "--out", str(root))
        cell = Cell(name="digit scenes", command=command, log=out / "logs" / "scenes.log")
        _stop(run_cells("data", [cell], num_lanes=1))
        return root
    for role, source in lay_out(data, root).items():
        print(f"data: {role:9s} <- {source.path} ({source.num_train} training files)", file=sys.stderr)
    return root


def _show(command: Sequence[str]) -> None:
    """Run a command whose output is the demo's own output."""
    exit_code = subprocess.run([sys.executable, "-m", "unveil_evalharness", *command], check=False).returncode
    if exit_code:
        raise SystemExit(exit_code)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the road; finished parts are reused."""
    options = _arguments(arguments)
    out = options.out or Path("runs") / ("demo" if options.data is None else f"demo-{options.data.resolve().name}")
    start = time.monotonic()
    budget = Budget(
        num_unique=tuple(options.num_unique),
        steps=tuple(options.steps),
        flip_steps=options.flip_steps,
        limit=options.limit,
    )
    try:
        data_root = _prepare_data(out, options.data)
        pretraining = pretraining_cells(data_root, out, budget)
        _stop(run_cells("pre-training", pretraining, num_lanes=options.lanes))
        evaluation = evaluation_cells(data_root, out, pretraining, budget)
        failures = run_cells("evaluation", evaluation, num_lanes=options.lanes)
    except (RealDataError, OSError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    results = str(out / "eval")
    _show(("report", results, "--output", str(out / "report")))
    print(f"\ndone in {(time.monotonic() - start) / 60:.1f} minutes")
    print(f"report: {out / 'report' / 'report.html'}")
    # What did succeed is worth its report; the failures come last, where they are seen.
    _stop(failures)


if __name__ == "__main__":
    main()
