"""Writes the report: ``report.html``, ``report.md``, ``correlation.json`` and ``figures/``."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unveil_evalharness.correlate.correlation import Correlation, correlate_evidence
from unveil_evalharness.correlate.evidence import read_evidence
from unveil_evalharness.errors import OutputError
from unveil_evalharness.report.content import Content, build_content
from unveil_evalharness.report.figures import draw_all
from unveil_evalharness.report.lookup import Lookup
from unveil_evalharness.report.markdown import to_markdown
from unveil_evalharness.report.page import to_html

__all__ = ["Report", "make_report", "write_report"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was written, and what it says."""

    page: Path
    content: Content
    correlation: Correlation


def write_report(output_paths: Sequence[Path], destination: Path) -> Path:
    """Writes the report of one or more output folders of ``evalharness run`` and returns the path of its page.

    Raises:
        ResultsError: the folders cannot be read.
        OutputError: the destination cannot be written; an earlier report there is intact or replaced file by file.
    """
    return make_report(output_paths, destination).page


def make_report(output_paths: Sequence[Path], destination: Path) -> Report:
    """`write_report`, also returning the content for whoever wants to print it."""
    evidence = read_evidence(output_paths)
    correlation = correlate_evidence(evidence)
    lookup = Lookup.of(evidence)
    content = build_content(lookup, correlation)
    pictures = draw_all(lookup, correlation)
    files = {f"figures/{picture.name}.svg": picture.svg for picture in pictures}
    files |= {f"figures/{picture.name}.png": picture.png for picture in pictures}
    files["correlation.json"] = (correlation.to_json() + "\n").encode("utf-8")
    files["report.md"] = to_markdown(content, pictures).encode("utf-8")
    files["report.html"] = to_html(content, pictures).encode("utf-8")
    try:
        (destination / "figures").mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            _write(destination / name, data)
    except OSError as error:
        raise OutputError(
            f"cannot write the report to {destination}: {error.strerror or error}; "
            "choose a folder you may write with --output, on a disk with free space"
        ) from error
    return Report(page=destination / "report.html", content=content, correlation=correlation)


def _write(path: Path, data: bytes) -> None:
    """By way of a temporary sibling, so that a reader of an earlier report never sees half a page."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.chmod(0o644)  # mkstemp makes files only their owner may read
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
