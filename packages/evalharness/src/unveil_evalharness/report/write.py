"""Writes the report: ``report.html``, ``.md``, ``.json`` and ``.csv``, ``figures/``, and tables too long for a page."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unveil_backbones.whole_files import alone, remove_unfinished, write_whole

from unveil_evalharness.correlate.correlation import Correlation, correlate_evidence
from unveil_evalharness.correlate.evidence import read_evidence
from unveil_evalharness.errors import OutputError
from unveil_evalharness.report.assemble import assemble
from unveil_evalharness.report.content import Content
from unveil_evalharness.report.html_table import MAX_ROWS
from unveil_evalharness.report.lookup import Lookup
from unveil_evalharness.report.machine import rows_csv, table_csv, to_json
from unveil_evalharness.report.markdown import to_markdown
from unveil_evalharness.report.page import to_html
from unveil_evalharness.report.papers import paper_files
from unveil_evalharness.report.sections.comparisons import comparison_sections
from unveil_evalharness.report.tables import table_file

__all__ = ["FORMATS", "Format", "Report", "make_report", "write_content", "write_report"]

Format = Literal["html", "md", "json", "csv"]
FORMATS: tuple[Format, ...] = ("html", "md", "json", "csv")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was written, and what it says."""

    files: tuple[Path, ...]
    """``report.html`` first where it was asked for; figures and tables are left out."""
    content: Content

    @property
    def page(self) -> Path:
        """The first file."""
        return self.files[0]


def write_report(output_paths: Sequence[Path], destination: Path) -> Path:
    """Writes the report of one or more output folders of ``evalharness run`` and returns the path of its page.

    Raises:
        ResultsError: the folders cannot be read.
        OutputError: the destination cannot be written; an earlier report there is intact or replaced file by file.
    """
    return make_report(output_paths, destination).page


def make_report(
    output_paths: Sequence[Path],
    destination: Path,
    *,
    formats: Sequence[Format] = FORMATS,
    figures: bool = True,
    include: Sequence[Path] = (),
) -> Report:
    """`write_report` in chosen formats, also returning the content for whoever wants to print it.

    Args:
        output_paths: output folders of ``evalharness run``.
        destination: folder to write.
        formats: which files to write.
        figures: whether to write each figure as SVG and PNG too.
        include: JSON files of `evalharness compare` and `evalharness gate` to show.
    """
    comparisons = comparison_sections(include)
    evidence = read_evidence(output_paths)
    correlation = correlate_evidence(evidence)
    content = assemble(Lookup.of(evidence), correlation, comparisons)
    return write_content(
        content,
        destination,
        formats=formats,
        figures=figures,
        csv=lambda: rows_csv(evidence.rows),
        extra=_extra(correlation),
    )


def _extra(correlation: Correlation) -> dict[str, Any]:
    return {"correlation": json.loads(correlation.to_json())}


def write_content(
    content: Content,
    destination: Path,
    *,
    formats: Sequence[Format],
    figures: bool,
    csv: Callable[[], str],
    extra: dict[str, Any],
) -> Report:
    """Writes `content` in the given formats and, with `figures`, each figure as SVG and PNG beside them.

    Raises:
        OutputError: the destination cannot be written.
    """
    makers: dict[Format, Callable[[], str]] = {
        "html": lambda: to_html(content),
        "md": lambda: to_markdown(content, figures=figures),
        "json": lambda: to_json(content, extra),
        "csv": csv,
    }
    # Halves of letters, which JSON can hold and UTF-8 cannot, are shown as question marks.
    files = {f"report.{name}": makers[name]().encode("utf-8", "replace") for name in FORMATS if name in formats}
    beside: dict[str, bytes] = {}
    for figure in content.figures if figures else ():
        drawn = paper_files(figure)
        beside[f"figures/{figure.name}.svg"] = drawn.svg
        beside[f"figures/{figure.name}.dark.svg"] = drawn.svg_dark
        beside[f"figures/{figure.name}.png"] = drawn.png
    if {"html", "md"} & set(formats):
        for table in content.tables:
            if len(table.rows) > MAX_ROWS:
                beside[table_file(table)] = table_csv(table).encode("utf-8", "replace")
    try:
        for folder in {destination, *((destination / name).parent for name in beside)}:
            folder.mkdir(parents=True, exist_ok=True)
        with alone(destination / ".report.lock") as mine:
            if not mine:
                raise OutputError(
                    f"another `evalharness report` is writing {destination}; wait for it, or choose another --output"
                )
            for name, data in {**beside, **files}.items():
                remove_unfinished((destination / name).parent)
                write_whole(destination / name, data)
    except OSError as error:
        raise OutputError(
            f"cannot write the report to {destination}: {error.strerror or error}; "
            "choose a folder you may write with --output, on a disk with free space"
        ) from error
    return Report(files=tuple(destination / name for name in files), content=content)
