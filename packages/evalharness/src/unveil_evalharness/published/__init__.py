"""Published runs as tables: what a paper printed about loss and transfer, typed in once, with its source. No torch."""

from unveil_evalharness.published.overfitting import mark_overfitting
from unveil_evalharness.published.reader import COLUMNS, PUBLISHED, UNITS, read_published
from unveil_evalharness.published.summary import read_summary

__all__ = ["COLUMNS", "PUBLISHED", "UNITS", "mark_overfitting", "read_published", "read_summary"]
