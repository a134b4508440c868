"""Code blocks of the documents, and how each is checked. Every block of every page and README is, one way or another.

Without a comment before it a block is checked by its language:

- `python` is run, block after block of a page in one namespace;
- `bash`, `sh` and `console` are read by the parsers of the commands in them: wrong flags are found, nothing is started;
- `json` and `toml` are read; `text` is output, and nothing is done with it;
- a block without language is read as commands if it begins with one, else it is output.

An HTML comment in the line before the fence changes that: `<!-- block: run -->` runs a block of commands,
`<!-- block: shown, because … -->` does nothing with it. Pages that a test of their own runs are named in `ELSEWHERE`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["ELSEWHERE", "ROOT", "Block", "BlockError", "How", "blocks_of", "elsewhere", "pages"]

ROOT: Final = Path(__file__).resolve().parents[1]

How = Literal["run", "parse", "read", "output", "shown"]

ELSEWHERE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "docs/checkpoints.md": "tests/docs/test_checkpoints_page.py",
        "docs/how-to/new-task.md": "tests/docs/test_new_task_page.py",
        "docs/masking/*.md": "tests/docs/test_masking_docs.py",
        "packages/backbones/README.md": "packages/backbones/tests/test_readme.py",
        "packages/evalharness/README.md": "packages/evalharness/tests/test_core_readme.py",
        "packages/masking/README.md": "packages/masking/tests/test_readme.py",
    }
)
"""Pages (patterns) whose Python, where they have some, another test runs; their commands are checked here too."""

_PROGRAMS = ("pretrain", "evalharness", "python", "torchrun", "make", "pip", "OMP_NUM_THREADS=1", "$", "srun", "sbatch")
_SHELLS = ("bash", "sh", "console")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*$")
_COMMENT = re.compile(r"^ *<!-- block: (?P<what>run|shown)(?:, because (?P<why>.+))? -->$")


class BlockError(ValueError):
    """A fence or comment that cannot be understood, with page and line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One fenced block."""

    page: str
    """Path from the root of the repository."""
    line: int
    """Line of the opening fence, from 1."""
    language: str
    text: str
    how: How
    why: str = ""
    """The reason, of a block that is only shown."""

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page}:{self.line}"


def pages(root: Path = ROOT) -> list[Path]:
    """Every document with code in it; generated pages of docs/reference have none."""
    found = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]
    return [*found, *sorted((root / "packages").glob("*/README.md"))]


def elsewhere(page: str) -> str | None:
    """The test that runs the page's Python, or None."""
    return next((test for pattern, test in ELSEWHERE.items() if Path(page).match(pattern)), None)


def blocks_of(path: Path, root: Path = ROOT) -> list[Block]:
    """The blocks of one page, in order.

    Raises:
        BlockError: an unclosed fence, a comment that says nothing known, or one that stands before no block.
    """
    page = path.relative_to(root).as_posix()
    lines = path.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            if "<!-- block:" in lines[number]:
                _check_comment(lines, number, page)
            number += 1
            continue
        end = next((n for n in range(number + 1, len(lines)) if lines[n].strip() == "```"), None)
        if end is None:
            raise BlockError(f"{page}:{number + 1}: this fence is never closed; close it by ```")
        text = "\n".join(line.removeprefix(opening["indent"]) for line in lines[number + 1 : end]) + "\n"
        comment = _COMMENT.match(lines[number - 1]) if number else None
        how = _how(opening["language"], text, comment["what"] if comment else None)
        why = (comment["why"] or "") if comment else ""
        if how == "shown" and not why:
            raise BlockError(f"{page}:{number}: a block that is only shown needs a reason: shown, because …")
        found.append(Block(page=page, line=number + 1, language=opening["language"], text=text, how=how, why=why))
        number = end + 1
    return found


def _check_comment(lines: list[str], number: int, page: str) -> None:
    if not _COMMENT.match(lines[number]) or number + 1 == len(lines) or not _FENCE.match(lines[number + 1]):
        raise BlockError(
            f"{page}:{number + 1}: {lines[number].strip()} is not understood; write <!-- block: run --> or "
            "<!-- block: shown, because … --> in the line before a fence"
        )


def _how(language: str, text: str, comment: str | None) -> How:
    if comment == "shown":
        return "shown"
    if comment == "run" or language == "python":
        return "run"
    if language in ("json", "toml"):
        return "read"
    if language in _SHELLS or (not language and text.split(maxsplit=1)[:1] and text.split()[0] in _PROGRAMS):
        return "parse"
    return "output"
