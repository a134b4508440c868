"""The pages of docs/reference about commands, made of what the commands say of themselves.

python tools/cli_reference.py            # write docs/reference/cli-*.md
python tools/cli_reference.py --check    # say which of them are stale; exit code 1 if any is
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["main", "pages", "stale"]

_FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
_COLUMNS = "100"
_MIM_RECIPES = ("tiny_mae", "tiny_sparse_simmim", "tiny_beit", "tiny_splitmask", "tiny_ijepa", "tiny_videomae")
"""One recipe for each further objective of `pretrain mim`; only what their own settings are is shown."""


def pages() -> dict[str, str]:
    """The text of every page, by its file name."""
    return {
        "cli-pretrain.md": _pretrain(),
        "cli-evalharness.md": _evalharness(),
        "cli-backbones.md": _backbones(),
        "cli-masking.md": _masking(),
    }


def stale(folder: Path) -> list[str]:
    """Names of the pages in a folder that are missing, or say something else than the commands."""
    return [name for name, text in pages().items() if not (folder / name).is_file() or _read(folder / name) != text]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _pretrain() -> str:
    from unveil_pretrain.cli import COMMANDS, main

    parts = [_section("pretrain", _said(main, ["--help"]))]
    for command, usage in COMMANDS.items():
        if usage.startswith("RECIPE"):
            recipe = "tiny_flip" if command.startswith("flip") else "tiny_simmim"
            parts.append(_section(f"pretrain {command} RECIPE", _said(main, [command, recipe, "--help"])))
        else:
            parts.append(_section(f"pretrain {command}", _said(main, [command, "--help"])))
        if command == "mim":
            for other in _MIM_RECIPES:
                box = _objective_box(_said(main, ["mim", other, "--help"]))
                parts.append(_section(f"pretrain mim {other}: settings of its objective", box))
    return _page("pretrain", "The defaults of `mim` and `flip` are those of the recipe shown, named at the top.", parts)


def _evalharness() -> str:
    from unveil_evalharness.cli import COMMANDS, main

    parts = [_section("evalharness", _said(main, ["--help"]))]
    parts += [_section(f"evalharness {name}", _said(main, [*name.split(), "--help"])) for name in COMMANDS]
    return _page("evalharness", "Flags may be written with underscores too.", parts)


def _backbones() -> str:
    from unveil_backbones.cli import main

    commands = ("inspect", "verify", "convert", "schema")
    parts = [_section("python -m unveil_backbones", _said(main, ["--help"]))]
    parts += [_section(f"python -m unveil_backbones {name}", _said(main, [name, "--help"])) for name in commands]
    return _page("python -m unveil_backbones", "Checkpoints: looked at, verified, converted.", parts)


def _masking() -> str:
    from unveil_masking.show.cli import main

    parts = [_section("python -m unveil_masking", _said(main, ["--help"]))]
    parts.append(_section("python -m unveil_masking show", _said(main, ["show", "--help"])))
    parts.append(_section("python -m unveil_masking ls", _said(main, ["ls"])))
    return _page("python -m unveil_masking", "Pictures of masks.", parts)


def _page(title: str, what: str, parts: Sequence[str]) -> str:
    note = (
        "Made by `python tools/cli_reference.py` from what the commands say themselves; a test fails when it is stale."
    )
    return "\n".join([f"# {title}", "", what, "", note, "", *parts])


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n```text\n{text.rstrip()}\n```\n"


def _objective_box(text: str) -> str:
    """The last frame of a help text."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if "config.objective options" in line)
    return "\n".join(lines[start:])


def _said(command: Callable[[Sequence[str]], object], arguments: Sequence[str]) -> str:
    """What a command prints, on a terminal of one width.

    Raises:
        SystemExit: it fails.
    """
    said = io.StringIO()
    with _environment(COLUMNS=_COLUMNS, NO_COLOR="1"), contextlib.redirect_stdout(said):
        try:
            command(list(arguments))
        except SystemExit as stop:
            if stop.code:
                raise
    return "\n".join(line.rstrip() for line in said.getvalue().splitlines())


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 1 when `--check` finds a stale page."""
    parser = argparse.ArgumentParser(description="Write the pages of docs/reference about commands.")
    parser.add_argument("--check", action="store_true", help="write nothing; name stale pages and exit with 1")
    if parser.parse_args(arguments).check:
        found = stale(_FOLDER)
        sys.stderr.writelines(f"docs/reference/{name} is stale: python tools/cli_reference.py\n" for name in found)
        return int(bool(found))
    for name, text in pages().items():
        (_FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
