"""``evalharness run``: the table or JSON of a run on stdout, everything else on stderr."""

import json
import os
import sys
from collections.abc import Sequence

from unveil_evalharness.executing.dispatch import dispatch
from unveil_evalharness.executing.ranks import Rank, end_with_parent, take_rank, visible_device
from unveil_evalharness.grid import build_grid
from unveil_evalharness.interrupts import exit_code, orderly_termination
from unveil_evalharness.options import RunOptions
from unveil_evalharness.plan_table import cell_states, format_states
from unveil_evalharness.results import ResultRow
from unveil_evalharness.run import RunSummary
from unveil_evalharness.table import format_table, rows_as_json, table_notes
from unveil_evalharness.tasks import load_task

__all__ = ["RunOptions", "main"]


def main(options: RunOptions) -> int:
    """Evaluates and prints; 0 done, 1 a task failed, 130 interrupted, 143 terminated.

    Raises:
        HarnessError: bad input, found before any work begins.
    """
    if options.dry_run:
        states = cell_states(build_grid(options, load_task).cells, options)
        print(json.dumps(states) if options.json else format_states(states))
        return 0
    rank = take_rank(os.environ)
    if rank is not None and rank.started_by_harness:
        end_with_parent()
    if rank is not None and not rank.started_by_harness and options.device != "cpu":
        # Before anything asks torch for a GPU.
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_device(os.environ, rank.local)
    summary = RunSummary()
    interrupted = 0
    try:
        with orderly_termination():
            dispatch(options, rank=rank, summary=summary)
    except KeyboardInterrupt as error:
        interrupted = exit_code(error)
    code = interrupted or summary.exit_code
    if rank is None or (rank.number == 0 and not rank.started_by_harness):
        _print(options, summary, code)
        _closing_words(options, summary.rows, interrupted=bool(interrupted))
        return code
    return _quiet_code(rank, code, interrupted)


def _quiet_code(rank: Rank, code: int, interrupted: int) -> int:
    """Under torchrun a process that ends with an error ends the others; the first one tells of failed tasks."""
    return code if rank.started_by_harness else interrupted


def _print(options: RunOptions, summary: RunSummary, code: int) -> None:
    if options.json:
        print(
            json.dumps(
                {
                    "output_path": str(options.output_path),
                    "exit_code": code,
                    "num_run": summary.num_run,
                    "num_skipped": summary.num_skipped,
                    "num_failed": summary.num_failed,
                    "rows": json.loads(rows_as_json(summary.rows)),
                }
            )
        )
    elif summary.rows:
        print(format_table(summary.rows))
        for note in table_notes(summary.rows):
            print(note, file=sys.stderr)


def _closing_words(options: RunOptions, rows: Sequence[ResultRow], *, interrupted: bool) -> None:
    for row in rows:
        if row.status != "ok":
            print(f"{row.label} · {row.task}: {row.status.replace('_', ' ')}: {row.error}", file=sys.stderr)
    print(f"results: {options.output_path / 'results.jsonl'}", file=sys.stderr)
    if interrupted:
        print("evalharness: interrupted; finished tasks are kept, the same command goes on from here", file=sys.stderr)
