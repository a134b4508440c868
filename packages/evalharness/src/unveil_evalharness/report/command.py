"""``evalharness report OUT[,OUT] [--output DIR]``: writes the report, prints its table, answers and path."""

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from unveil_evalharness.correlate.evidence import split_paths
from unveil_evalharness.report.markdown import answer_lines, table_lines
from unveil_evalharness.report.write import Report, make_report

__all__ = ["ReportOptions", "main"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportOptions:
    """Write tables and figures from finished runs: report.html (opens offline), report.md, figures as SVG and PNG."""

    results: Positional[tuple[str, ...]]
    """Output folders of `evalharness run`; several may be separated by commas or spaces."""
    output: Path = Path("report")
    """Folder to write."""


def main(options: ReportOptions) -> int:
    """Writes the report and returns the exit status, which is 0.

    Raises:
        HarnessError: bad input or an output folder that cannot be written; the command line turns it into one line
            and exit status 2.
    """
    report = make_report(split_paths(options.results), options.output)
    sys.stdout.write("\n".join(_lines(report)) + "\n")
    return 0


def _lines(report: Report) -> list[str]:
    table = report.content.overview
    return [
        *table_lines(table),
        *table.notes,
        "",
        *answer_lines(report.content.answers, escaped=False),
        "",
        f"report: {report.page}",
    ]
