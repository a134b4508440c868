"""The report as Markdown, for a repository, a pull request or a terminal."""

import re
from collections.abc import Sequence

from unveil_backbones.terminal import visible

from unveil_evalharness.report.content import Answer, Content, Section
from unveil_evalharness.report.html_table import MAX_ROWS
from unveil_evalharness.report.tables import Table, table_file

__all__ = ["answer_lines", "escape_markdown", "table_lines", "to_markdown"]


def to_markdown(content: Content, *, figures: bool = True) -> str:
    """The report; figures are links into ``figures/`` beside it, pictures of predictions are left to the page."""
    lines = [f"# {escape_markdown(content.title)}", "", *answer_lines(content.answers), "", "## Results", ""]
    lines += _table(content.overview)
    for section in content.sections:
        lines += _section(section, figures=figures)
    return "\n".join(lines).rstrip() + "\n"


def _section(section: Section, *, figures: bool) -> list[str]:
    lines = [f"## {escape_markdown(section.title)}", ""]
    for paragraph in section.paragraphs:
        lines += [escape_markdown(paragraph), ""]
    if section.answers:
        lines += [*answer_lines(section.answers), ""]
    for figure in section.figures if figures else ():
        lines += [f"![{escape_markdown(figure.title)}](figures/{figure.name}.svg)", ""]
    for gallery in section.galleries:
        lines += [f"- {escape_markdown(gallery.title)}: {len(gallery.shots)} pictures, in report.html"]
    lines += [""] if section.galleries else []
    tables = (*section.tables, *section.folded)
    for table in tables:
        heading = [f"### {escape_markdown(table.title)}", ""] if len(tables) > 1 or table.title != section.title else []
        lines += [*heading, *_table(table)]
    return lines


def answer_lines(answers: Sequence[Answer], *, escaped: bool = True) -> list[str]:
    """One bullet per answer with its cautions below; `escaped` for Markdown, raw for a terminal."""
    lines = []
    for answer in answers:
        texts = (f"{answer.task}: {answer.text}", *answer.cautions)
        first, *others = (escape_markdown(text) if escaped else " ".join(text.split()) for text in texts)
        mark = f"**{escape_markdown(answer.verdict)}** " if escaped else f"[{answer.verdict}] "
        lines += [f"- {mark if answer.verdict else ''}{first}", *(f"  - {caution}" for caution in others)]
    return lines


def table_lines(table: Table, *, max_rows: int = MAX_ROWS) -> list[str]:
    """The first rows of the table in Markdown, padded so that it also reads well as plain text."""
    texts = [[escape_markdown(text) for text in table.header]]
    texts += [[escape_markdown(cell.shown) for cell in row] for row in table.rows[:max_rows]]
    widths = [max(len(row[column]) for row in texts) for column in range(len(table.header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            text.ljust(width) if column < table.num_text_columns else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|".join(
        "-" * (width + 2) if column < table.num_text_columns else "-" * (width + 1) + ":"
        for column, width in enumerate(widths)
    )
    return [line(texts[0]), f"|{rule}|", *(line(row) for row in texts[1:])]


def _table(table: Table) -> list[str]:
    notes = [line for note in table.notes for line in (escape_markdown(note), "")]
    if len(table.rows) > MAX_ROWS:
        notes += [f"The first {MAX_ROWS:,} of {len(table.rows):,} rows; all of them are in {table_file(table)}.", ""]
    return [*table_lines(table), "", *notes]


def escape_markdown(text: str) -> str:
    """Text from results must not become markup: HTML, links, emphasis, code or a table's edge."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|]|^[#>+=~-])", r"\\\1", visible(flat))
