"""The report as Markdown, for a repository, a pull request or a terminal."""

import re
from collections.abc import Sequence

from unveil_evalharness.report.content import Answer, Content
from unveil_evalharness.report.figures import Picture
from unveil_evalharness.report.tables import Table

__all__ = ["answer_lines", "table_lines", "to_markdown"]


def to_markdown(content: Content, pictures: Sequence[Picture]) -> str:
    """The report; figures are links into ``figures/`` beside it."""
    lines = [f"# {_escape(content.title)}", "", *answer_lines(content.answers), "", "## Results", ""]
    lines += _table(content.overview)
    if pictures:
        lines += ["## Figures", ""]
        for picture in pictures:
            lines += [f"![{_escape(picture.title)}](figures/{picture.name}.svg)", ""]
    if content.correlation is not None:
        lines += ["## Correlation", "", *_table(content.correlation)]
    lines += ["## Every metric, by task", ""] if content.tasks else []
    for table in content.tasks:
        lines += [f"### {_escape(table.title)}", "", *_table(table)]
    if content.problems is not None:
        lines += [f"## {content.problems.title}", "", *_table(content.problems)]
    lines += ["## Provenance", ""]
    for table in content.provenance:
        lines += [f"### {_escape(table.title)}", "", *_table(table)]
    return "\n".join(lines).rstrip() + "\n"


def answer_lines(answers: Sequence[Answer], *, escaped: bool = True) -> list[str]:
    """One bullet per answer with its cautions below; `escaped` for Markdown, raw for a terminal."""
    lines = []
    for answer in answers:
        texts = (f"{answer.task}: {answer.text}", *answer.cautions)
        first, *others = (_escape(text) if escaped else " ".join(text.split()) for text in texts)
        lines += [f"- {first}", *(f"  - {caution}" for caution in others)]
    return lines


def table_lines(table: Table) -> list[str]:
    """The table in Markdown, padded so that it also reads well as plain text."""
    texts = [[_escape(text) for text in table.header]]
    texts += [[_escape(cell.shown) for cell in row] for row in table.rows]
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
    notes = [line for note in table.notes for line in (_escape(note), "")]
    return [*table_lines(table), "", *notes]


def _escape(text: str) -> str:
    """Text from results must not become markup: HTML, links, emphasis, code or a table's edge."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|])", r"\\\1", flat)
