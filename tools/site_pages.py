"""Hooks of mkdocs: READMEs and changelogs of the packages become pages, and links of the repository lead on the site.

A link that leads to a file of the repository which is no page (a module, a script) becomes its path in code; one that
leads nowhere is left as it is, and the strict build fails on it.
"""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

__all__ = ["ROOT", "on_files", "on_page_markdown", "site_links"]

ROOT = Path(__file__).resolve().parents[1]

_PACKAGES = ("masking", "backbones", "pretrain", "evalharness")
_PAGES = {
    **{f"packages/{name}/README.md": f"packages/{name}.md" for name in _PACKAGES},
    **{f"packages/{name}/CHANGELOG.md": f"changelogs/{name}.md" for name in _PACKAGES},
}
"""Files outside of docs/ that are pages, by their path in the repository; the page's path in the site."""

_LINK = re.compile(r"\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^ {0,3}(```|~~~)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of docs/."""
    for source, place in _PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the repository into links of the site."""
    place = page.file.src_uri
    source = next((source for source, other in _PAGES.items() if other == place), f"docs/{place}")
    return site_links(markdown, source=source, place=place)


def site_links(markdown: str, *, source: str, place: str) -> str:
    """The text with its links led to pages of the site.

    Args:
        markdown: text of a page.
        source: the page's path in the repository.
        place: the page's path in the site.
    """
    lines, fenced = [], False
    for line in markdown.split("\n"):
        fenced ^= bool(_FENCE.match(line))
        lines.append(line if fenced else _LINK.sub(lambda found: _link(found[1], source, place), line))
    return "\n".join(lines)


def _link(target: str, source: str, place: str) -> str:
    path, mark, anchor = target.partition("#")
    if not path or "://" in path or path.startswith("mailto:"):
        return f"]({target})"
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    page = _PAGES.get(wanted) or (wanted.removeprefix("docs/") if wanted.startswith("docs/") else None)
    if page is not None and (wanted in _PAGES or (ROOT / wanted).is_file()):
        return f"]({os.path.relpath(page, posixpath.dirname(place) or '.')}{mark}{anchor})"
    if (ROOT / wanted).exists():
        return f"] (`{wanted}`)"
    return f"]({target})"
