"""The report of finished runs: one offline page that answers first, Markdown, JSON, CSV and figures; needs no torch."""

from unveil_evalharness.report.write import Report, make_report, write_report

__all__ = ["Report", "make_report", "write_report"]
