"""The demo's commands: a failing one is reported with its last line and stops no other."""

import sys
from pathlib import Path

from demo.cells import Cell, run_cells


def cell(folder: Path, name: str, code: str) -> Cell:
    return Cell(name=name, command=(sys.executable, "-c", code), log=folder / "logs" / f"{name}.log")


def test_a_failure_is_reported_and_the_others_run(tmp_path: Path) -> None:
    done = tmp_path / "done"
    bad = cell(tmp_path, "bad", "import sys; print('first'); print('the reason', file=sys.stderr); sys.exit(3)")
    good = cell(tmp_path, "good", f"open({str(done)!r}, 'w').close(); print('fine')")
    (failure,) = run_cells("test", [bad, good], num_lanes=1)
    assert (failure.cell, failure.exit_code, failure.last_line) == (bad, 3, "the reason")
    assert done.exists()
    assert good.log.read_text() == "fine\n"


def test_commands_run_with_one_thread_each(tmp_path: Path) -> None:
    shown = cell(tmp_path, "shown", "import os; print(os.environ['OMP_NUM_THREADS'])")
    assert run_cells("test", [shown], num_lanes=2) == []
    assert shown.log.read_text() == "1\n"
