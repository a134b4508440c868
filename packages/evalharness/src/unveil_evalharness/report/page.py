"""The report as one HTML page that needs nothing but itself: style, script, figures and pictures are inside.

A content security policy lets the browser run exactly this script and fetch nothing; every word that comes from
results, manifests or pictures is escaped.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape
from importlib import resources

from unveil_evalharness.report.content import Answer, Content, Gallery, Section, Shot
from unveil_evalharness.report.html_table import table_html
from unveil_evalharness.report.palette import theme_css
from unveil_evalharness.report.svg import figure_html, whole_words
from unveil_evalharness.report.tables import Table

__all__ = ["to_html"]

_OUTCOMES = {"good": "✓ right", "bad": "✗ wrong", "example": ""}
_FEW_GALLERIES = 2
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def to_html(content: Content) -> str:
    """The page as text.

    Tables of more rows than a page bears are cut, with a note that names the file beside it that holds them all.
    """
    style = theme_css() + _resource("style.css")
    script = _resource("script.js")
    sections = [section for section in content.sections if not section.is_empty]
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    links = [("results", "Results"), *((section.key, section.title) for section in sections)]
    nav = "".join(f'<li><a href="#{escape(key)}">{escape(title)}</a></li>' for key, title in links)
    body = [
        f"<header><h1>{escape(content.title)}</h1>",
        '<button type="button" id="theme" hidden>Light or dark</button></header>',
        _answers(content.answers, "answers"),
        f'<nav aria-label="Sections"><ul>{nav}</ul></nav>',
        f'<section id="results"><h2>Results</h2>{table_html(content.overview, with_caption=False)}</section>',
        *map(_section, sections),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(content.title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + '\n</main>\n<div id="tip" role="tooltip" hidden></div>\n'
        + f"<script>{script}</script>\n</body>\n</html>\n"
    )
    # Names that turn the direction of text around could make a verdict read as another one.
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", page)


def _resource(name: str) -> str:
    return resources.files("unveil_evalharness.report").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{whole_words(paragraph)}</p>" for paragraph in section.paragraphs]
    if section.answers:
        parts.append(_answers(section.answers, f"answers-{section.key}"))
    if section.figures:
        parts.append(f'<div class="figures">{"".join(map(figure_html, section.figures))}</div>')
    parts += map(table_html, section.tables)
    parts += [_gallery(gallery, open_=index < _FEW_GALLERIES) for index, gallery in enumerate(section.galleries)]
    parts += map(_details, section.folded)
    return f'<section id="{escape(section.key)}">{"".join(parts)}</section>'


def _answers(answers: Sequence[Answer], key: str) -> str:
    items = []
    for answer in answers:
        cautions = "".join(f"<li>{whole_words(caution)}</li>" for caution in answer.cautions)
        more = f"<ul>{cautions}</ul>" if cautions else ""
        verdict = f'<strong class="verdict {answer.tone}">{escape(answer.verdict)}</strong> ' if answer.verdict else ""
        items.append(
            f'<li>{verdict}<span class="task">{escape(answer.task)}</span>: {whole_words(answer.text)}{more}</li>'
        )
    return f'<ul class="answers" id="{escape(key)}">{"".join(items)}</ul>'


def _details(table: Table) -> str:
    return f"<details><summary>{escape(table.title)}</summary>{table_html(table, with_caption=False)}</details>"


def _gallery(gallery: Gallery, *, open_: bool) -> str:
    right = sum(shot.outcome == "good" for shot in gallery.shots)
    judged = sum(shot.outcome != "example" for shot in gallery.shots)
    tally = f" <small>{right} of {judged} right</small>" if judged else ""
    return (
        f"<details{' open' if open_ else ''}><summary>{escape(gallery.title)}{tally}</summary>"
        f'<div class="gallery">{"".join(map(_shot, gallery.shots))}</div></details>'
    )


def _shot(shot: Shot) -> str:
    data = base64.b64encode(shot.encoded).decode("ascii")
    outcome = _OUTCOMES[shot.outcome]
    mark = f'<span class="outcome">{outcome}</span> ' if outcome else ""
    return (
        f'<figure class="shot {shot.outcome}"><img src="data:image/{shot.kind};base64,{data}" width="{shot.width}" '
        f'height="{shot.height}" alt="{escape(shot.caption or "prediction")}">'
        f"<figcaption>{mark}{escape(shot.caption)}</figcaption></figure>"
    )
