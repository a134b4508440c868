"""One table as HTML: the script makes it sort and filter; without the script it is still a table."""

from html import escape

from unveil_evalharness.report.tables import BASELINE_LABEL, Cell, Table, table_file

__all__ = ["MAX_ROWS", "table_html"]

MAX_ROWS = 500
"""Rows of a table on the page; all rows are in a file beside it."""
_FILTERED_FROM = 8
_WIDE = 28  # characters from which a cell of words may be broken over lines
_NUM_SHADES = 8


def table_html(table: Table, *, with_caption: bool = True) -> str:
    """The table with its notes, in a box that scrolls sideways by itself."""
    shown = table.rows[:MAX_ROWS]
    header = "".join(
        f'<th scope="col"{_kind(index, table)}>{_breakable(title)}</th>' for index, title in enumerate(table.header)
    )
    rows = []
    for row in shown:
        baseline = ' class="baseline"' if row[0].text == BASELINE_LABEL else ""
        rows.append(f"<tr{baseline}>{''.join(_cell(cell, index, table) for index, cell in enumerate(row))}</tr>")
    caption = f"<caption>{escape(table.title)}</caption>" if with_caption else ""
    tools = ""
    if len(shown) >= _FILTERED_FROM:
        tools = (
            f'<div class="tools" hidden><input type="search" placeholder="Filter rows" '
            f'aria-label="Filter rows of {escape(table.title)}"><span class="shown" aria-live="polite"></span></div>'
        )
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    if len(table.rows) > MAX_ROWS:
        name = escape(table_file(table))
        notes += (
            f'<p class="note">The first {MAX_ROWS:,} of {len(table.rows):,} rows; all of them are in '
            f'<a href="{name}">{name}</a>.</p>'
        )
    return (
        f'<div class="table">{tools}<div class="scroll" tabindex="0" role="group" aria-label="{escape(table.title)}">'
        f"<table>{caption}<thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{notes}</div>"
    )


def _cell(cell: Cell, index: int, table: Table) -> str:
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    classes = []
    if index >= table.num_text_columns:
        classes += ["number", *(["weak"] if cell.weak else [])]
    elif index and len(cell.text) > _WIDE:
        classes.append("wide")
    if cell.shade is not None:
        classes.append(f"h{round(max(0.0, min(1.0, cell.shade)) * _NUM_SHADES)}")
    kind = f' class="{" ".join(classes)}"' if classes else ""
    if index == 0:
        return f'<th scope="row"{kind}{value}>{_breakable_words(cell.shown)}</th>'
    return f"<td{kind}{value}>{escape(cell.shown)}</td>"


def _breakable(title: str) -> str:
    """A metric's name may be broken after its dot, else after an underscore, so that many columns fit a page."""
    mark = "." if "." in title else "_"
    return escape(title).replace(mark, f"{mark}<wbr>")


def _breakable_words(text: str) -> str:
    return escape(text).replace("_", "_<wbr>")


def _kind(index: int, table: Table) -> str:
    return ' class="number"' if index >= table.num_text_columns else ""
