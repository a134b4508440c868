"""``evalharness report OUT[,OUT] [--format …] [--output DIR]``: writes the report, prints its table and answers."""

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from unveil_evalharness.correlate.evidence import split_paths
from unveil_evalharness.errors import UsageError
from unveil_evalharness.parsing import nearest
from unveil_evalharness.report.markdown import answer_lines, table_lines
from unveil_evalharness.report.write import FORMATS, Format, Report, make_report

__all__ = ["ReportOptions", "main"]

_ROWS_ON_TERMINAL = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportOptions:
    """Write tables and figures from finished runs: one page that opens offline, Markdown, JSON, CSV, SVG and PNG."""

    results: Positional[tuple[str, ...]] = ()
    """Output folders of `evalharness run`; several may be separated by commas or spaces."""
    published: str = ""
    """A published set instead of results, such as xie2023: the whole page without a checkpoint."""
    include: tuple[Path, ...] = ()
    """Files that `evalharness compare --json` or `evalharness gate --json` printed: shown after the results."""
    format: tuple[str, ...] = FORMATS
    """What to write: html, md, json, csv."""
    figures: bool = True
    """Also write each figure as SVG, for light and dark pages, and PNG."""
    output: Path = Path("report")
    """Folder to write."""

    def __post_init__(self) -> None:
        """Refuses formats that do not exist, and results together with a published set."""
        for name in self.format:
            if name not in FORMATS:
                raise UsageError(f"--format has no {name!r}{nearest(name, list(FORMATS))}")
        if not self.format:
            raise UsageError(f"--format is empty; give one or more of {', '.join(FORMATS)}")
        if self.published and self.include:
            raise UsageError("--include belongs to results of your own; leave it out with --published")
        if self.published and self.results:
            raise UsageError("give result folders or --published, not both; run the command twice for two reports")


def main(options: ReportOptions) -> int:
    """Writes the report and returns the exit status, which is 0.

    Raises:
        HarnessError: bad input or an output folder that cannot be written; the command line turns it into one line
            and exit status 2.
    """
    formats: list[Format] = [name for name in FORMATS if name in options.format]
    if options.published:
        from unveil_evalharness.report.published import make_published_report

        report = make_published_report(options.published, options.output, formats=formats, figures=options.figures)
    else:
        report = make_report(
            split_paths(options.results),
            options.output,
            formats=formats,
            figures=options.figures,
            include=options.include,
        )
    sys.stdout.write("\n".join(_lines(report)) + "\n")
    return 0


def _lines(report: Report) -> list[str]:
    table = report.content.overview
    rest = len(table.rows) - _ROWS_ON_TERMINAL
    return [
        *table_lines(table, max_rows=_ROWS_ON_TERMINAL),
        *([f"… and {rest:,} more rows"] if rest > 0 else []),
        *table.notes,
        "",
        *answer_lines(report.content.answers, escaped=False),
        "",
        *(f"report: {path}" for path in report.files),
    ]
