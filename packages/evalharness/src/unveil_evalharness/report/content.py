"""What a report holds, as data without a format: the page, Markdown, JSON and CSV are written from it alike.

A part of the harness that has something to report hands over a `Section`.
"""

from dataclasses import dataclass
from typing import Literal

from unveil_evalharness.plot import Figure
from unveil_evalharness.report.tables import Table

__all__ = ["Answer", "Content", "Gallery", "Section", "Shot"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One sentence about one question, and what limits it."""

    task: str
    """What the sentence is about, in a word or two: a task, a checkpoint."""
    text: str
    cautions: tuple[str, ...] = ()
    verdict: str = ""
    """A few words that stand before the sentence: ``usable``, ``regressed``; empty for none."""
    tone: Literal["good", "warn", "bad", "plain"] = "plain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One picture of a prediction."""

    encoded: bytes
    kind: Literal["jpeg", "png"]
    width: int
    height: int
    caption: str
    outcome: Literal["good", "bad", "example"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """Pictures of one task on one checkpoint."""

    title: str
    shots: tuple[Shot, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A titled part of the report; its parts are shown in the order of the fields."""

    key: str
    """Lower-case letters and dashes: the section's place in links."""
    title: str
    paragraphs: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    folded: tuple[Table, ...] = ()
    """Tables behind a click."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.paragraphs or self.answers or self.figures or self.tables or self.galleries or self.folded)


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """The whole report."""

    title: str
    answers: tuple[Answer, ...]
    """What a reader came for, first of all."""
    overview: Table
    """The results in one table, shown below the answers and on the terminal."""
    sections: tuple[Section, ...]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures in the order of the page."""
        return tuple(figure for section in self.sections for figure in section.figures)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables in the order of the page."""
        own = [table for section in self.sections for table in (*section.tables, *section.folded)]
        return (self.overview, *own)
