"""The report as one HTML page that needs nothing but itself: style and figures inside, no script, no link outward."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from unveil_evalharness.report.content import Answer, Content
from unveil_evalharness.report.figures import Picture
from unveil_evalharness.report.tables import BASELINE_LABEL, Cell, Table

__all__ = ["to_html"]

_WIDE = 28  # characters from which a cell of words may be broken over lines


def to_html(content: Content, pictures: Sequence[Picture]) -> str:
    """The page as text; every word that comes from results or manifests is escaped."""
    style = resources.files("unveil_evalharness.report").joinpath("style.css").read_text(encoding="utf-8")
    sections = [
        f"<h1>{escape(content.title)}</h1>",
        _answers(content.answers),
        "<h2>Results</h2>",
        _table(content.overview, with_caption=False),
        *_section("Figures", map(_figure, pictures)),
        *_section("Correlation", [] if content.correlation is None else [_table(content.correlation)]),
        *_section("Every metric, by task", map(_table, content.tasks)),
        *_section(
            "Failed and not applicable",
            [] if content.problems is None else [_table(content.problems, with_caption=False)],
        ),
        "<h2>Provenance</h2>",
        "".join(_details(table) for table in content.provenance),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(content.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, parts: Iterable[str]) -> list[str]:
    body = list(parts)
    return [f"<h2>{escape(title)}</h2>", *body] if body else []


def _answers(answers: Sequence[Answer]) -> str:
    items = []
    for answer in answers:
        cautions = "".join(f"<li>{_words(caution)}</li>" for caution in answer.cautions)
        more = f"<ul>{cautions}</ul>" if cautions else ""
        items.append(f'<li><span class="task">{escape(answer.task)}</span>: {_words(answer.text)}{more}</li>')
    return f'<ul class="answers">{"".join(items)}</ul>'


def _words(text: str) -> str:
    """A sentence; ``n = 6`` stays on one line."""
    return escape(text).replace("n = ", "n&nbsp;=&nbsp;")


def _table(table: Table, *, with_caption: bool = True) -> str:
    header = "".join(f"<th{_kind(index, table)}>{_breakable(title)}</th>" for index, title in enumerate(table.header))
    rows = []
    for row in table.rows:
        baseline = ' class="baseline"' if row[0].text == BASELINE_LABEL else ""
        rows.append(f"<tr{baseline}>{''.join(_cell(cell, index, table) for index, cell in enumerate(row))}</tr>")
    caption = f"<caption>{escape(table.title)}</caption>" if with_caption else ""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return (
        f'<div class="scroll"><table>{caption}<thead><tr>{header}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{notes}"
    )


def _cell(cell: Cell, index: int, table: Table) -> str:
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    if index >= table.num_text_columns:
        return f'<td class="number{" weak" if cell.weak else ""}"{value}>{escape(cell.shown)}</td>'
    wide = ' class="wide"' if index and len(cell.text) > _WIDE else ""
    return f"<td{wide}{value}>{escape(cell.shown)}</td>"


def _breakable(title: str) -> str:
    """A metric's name may be broken after its dot, else after an underscore, so that many columns fit a page."""
    mark = "." if "." in title else "_"
    return escape(title).replace(mark, f"{mark}<wbr>")


def _kind(index: int, table: Table) -> str:
    return ' class="number"' if index >= table.num_text_columns else ""


def _details(table: Table) -> str:
    return f"<details><summary>{escape(table.title)}</summary>{_table(table, with_caption=False)}</details>"


def _figure(picture: Picture) -> str:
    def data(svg: bytes) -> str:
        return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode('ascii')}"

    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{data(picture.svg_dark)}">'
        f'<img src="{data(picture.svg)}" alt="{escape(picture.alternative)}"></picture>'
        f"<figcaption>{escape(picture.title)}</figcaption></figure>"
    )
