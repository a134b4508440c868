"""``evalharness run``: the table or JSON of a run on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Sequence

from unveil_evalharness.results import ResultRow
from unveil_evalharness.run import RunOptions, RunSummary, run
from unveil_evalharness.table import format_table, rows_as_json

__all__ = ["RunOptions", "main"]


def main(options: RunOptions) -> int:
    """Evaluates and prints; 0 done, 1 a task failed, 130 interrupted.

    Raises:
        HarnessError: bad input, found before any work begins.
    """
    summary = RunSummary()
    interrupted = False
    try:
        run(options, summary=summary)
    except KeyboardInterrupt:
        interrupted = True
    code = 130 if interrupted else summary.exit_code
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
    _closing_words(options, summary.rows, interrupted=interrupted)
    return code


def _closing_words(options: RunOptions, rows: Sequence[ResultRow], *, interrupted: bool) -> None:
    for row in rows:
        if row.status != "ok":
            print(f"{row.label} · {row.task}: {row.status.replace('_', ' ')}: {row.error}", file=sys.stderr)
    print(f"results: {options.output_path / 'results.jsonl'}", file=sys.stderr)
    if interrupted:
        print("evalharness: interrupted; finished tasks are kept, the same command goes on from here", file=sys.stderr)
