"""The site is whole: every page in the navigation, commands as they are, pictures small, links that lead somewhere."""

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import cli_reference
import pytest
import yaml
from docs_blocks import ROOT
from site_pages import site_links

DOCS = ROOT / "docs"


def navigation() -> list[str]:
    """Pages that mkdocs.yml names."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return re.findall(r"([\w/.-]+\.md)$", text.partition("\nnav:")[2], re.MULTILINE)


def test_every_page_is_in_the_navigation_once():
    named = navigation()
    assert sorted(named) == sorted(set(named))
    elsewhere = {name for name in named if name.startswith(("packages/", "changelogs/"))}
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert pages == set(named) - elsewhere
    assert len(elsewhere) == 8


def test_pages_about_commands_say_what_the_commands_say():
    # argparse names an option with a value in fewer words since Python 3.13; the pages are written with an older one.
    reworded = {"cli-masking.md"} if sys.version_info >= (3, 13) else set()
    assert set(cli_reference.stale(DOCS / "reference")) <= reworded, "run: python tools/cli_reference.py"


def test_a_stale_page_about_a_command_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(cli_reference, "pages", lambda: {"a.md": "new", "b.md": "same"})
    (tmp_path / "a.md").write_text("old", encoding="utf-8")
    (tmp_path / "b.md").write_text("same", encoding="utf-8")
    assert cli_reference.stale(tmp_path) == ["a.md"]


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda path: path.relative_to(DOCS).as_posix())
def test_every_picture_has_words_and_is_small(page):
    for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        assert len(words) > 10 or page.parent.name in ("masking", "study"), f"{page}: {target} needs a description"
        picture = page.parent / target
        assert picture.is_file(), target
        assert picture.stat().st_size < 200_000


def test_links_of_the_repository_become_links_of_the_site():
    fenced = "\n```\n[e](../faq.md)\n```"
    text = "[a](../concepts.md#x) [b](../../packages/masking/README.md) [c](../../tools/release.py) [d](lost.md)"
    expected = "[a](../concepts.md#x) [b](../packages/masking.md) [c] (`tools/release.py`) [d](lost.md)"
    assert site_links(text + fenced, source="docs/how-to/x.md", place="how-to/x.md") == expected + fenced


def flags_of_help() -> set[str]:
    pages = (DOCS / "reference").glob("cli-*.md")
    return {flag for page in pages for flag in re.findall(r"--[a-z][\w-]*", page.read_text(encoding="utf-8"))}


def test_every_answer_names_a_command_or_a_page():
    answers = re.split(r"^### ", (DOCS / "faq.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert len(answers) > 25
    known = flags_of_help()
    for answer in answers:
        assert "https://github.com/" in answer, answer
        pages = [target for target in re.findall(r"\]\(([^)]+)\)", answer) if "://" not in target]
        commands = re.findall(r"`((?:pretrain|evalharness|python -m unveil_\w+|make) [^`]+)`", answer)
        assert pages or commands, answer
        for command in commands:
            assert set(re.findall(r"--[a-z][\w-]*", command)) <= known, command


class Links(HTMLParser):
    """What a page refers to, and the anchors it has."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[tuple[str, str]] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        for name in ("href", "src"):
            if values.get(name) and not (tag == "link" and values.get("rel") == "canonical"):
                self.targets.append((tag, values[name]))


def links_of(page: Path) -> Links:
    parser = Links()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def broken(site: Path) -> list[str]:
    """Links and pictures that lead nowhere, and files that a browser would fetch from elsewhere."""
    pages = {path: links_of(path) for path in site.rglob("*.html")}
    found = []
    for page, links in pages.items():
        if page.name == "404.html":
            continue  # its links are absolute, for it stands in for pages at any depth
        for tag, target in links.targets:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https", "mailto", "data") or target.startswith("//"):
                if tag != "a":
                    found.append(f"{page}: {tag} would fetch {target}")
                continue
            place = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            place = place / "index.html" if place.is_dir() else place
            anchors = pages[place].anchors if place in pages else set()
            if not place.is_file() or (parts.fragment and place in pages and unquote(parts.fragment) not in anchors):
                found.append(f"{page}: {target}")
    return found


@pytest.mark.slow
def test_the_site_is_built_strictly_and_every_link_leads_somewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert broken(tmp_path / "site") == []
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style
    for name in ("masking", "backbones", "pretrain", "evalharness"):
        page = tmp_path / "site" / "reference" / f"api-{name}" / "index.html"
        public = {f"unveil_{name}.{one}" for one in importlib.import_module(f"unveil_{name}").__all__}
        found = set(re.findall(rf'id="(unveil_{name}\.\w+)"', page.read_text(encoding="utf-8")))
        assert public <= found, public - found
        assert not {one for one in found if one.rpartition(".")[2].startswith("_")}


def test_a_broken_link_and_a_foreign_file_are_found(tmp_path):
    (tmp_path / "b.html").write_text('<p id="here">', encoding="utf-8")
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here"></a><a href="b.html#gone"></a><img src="no.png"><script src="https://x.example/y.js"></script>'
        '<a href="https://x.example"></a>',
        encoding="utf-8",
    )
    assert [line.rpartition(": ")[2] for line in broken(tmp_path)] == [
        "b.html#gone",
        "no.png",
        "script would fetch https://x.example/y.js",
    ]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert [author["name"] for author in citation["authors"]] == ["The Unveil developers"]
    assert {reference["identifiers"][0]["value"] for reference in citation["references"]} == {
        "arXiv:2206.04664",
        "arXiv:2212.00794",
    }
    assert all(reference["authors"] and reference["year"] for reference in citation["references"])
    heads = [re.search(r"^## (\S+)", path.read_text(), re.MULTILINE) for path in ROOT.glob("packages/*/CHANGELOG.md")]
    assert citation["version"] in {head[1] for head in heads if head}
