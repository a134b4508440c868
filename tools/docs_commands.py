"""Commands of the documents, read by the parsers of the programs themselves; nothing is started.

`mistakes(text)` gives a line for each command that its program would not understand: an unknown flag, recipe or
command, a target that the Makefile has not, a file that is not there.
"""

import argparse
import contextlib
import importlib
import inspect
import io
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn
from unittest import mock

__all__ = ["commands_of", "mistake_of", "mistakes"]

ROOT: Final = Path(__file__).resolve().parents[1]

_OPERATORS = frozenset([";", "&", "&&", "||", "|", "(", ")", ";;", ";&"])
_REDIRECTIONS = frozenset([">", ">>", "<", "<<", ">&", "<&", "<<<"])
_SHELL = frozenset(
    [
        "case",
        "esac",
        "if",
        "then",
        "else",
        "fi",
        "for",
        "do",
        "done",
        "while",
        "in",
        "exit",
        "echo",
        "cd",
        "export",
        "ls",
        "cat",
        "cp",
        "mv",
        "mkdir",
        "rm",
        "set",
        "source",
        ".",
        "sleep",
        "tail",
        "head",
        "tee",
        "wc",
        "kill",
        "truncate",
        "true",
        "test",
        "xargs",
        "sort",
        "grep",
        "sed",
        "find",
        "chmod",
        "ln",
        "code=",
        "time",
        "nice",
    ]
)
_OTHERS = frozenset(
    [
        "git",
        "docker",
        "apt",
        "apt-get",
        "pre-commit",
        "tensorboard",
        "squeue",
        "sacct",
        "scancel",
        "sinfo",
        "curl",
        "chromium",
    ]
)
"""Programs that are not ours and whose flags are not looked at."""
_LAUNCHERS = frozenset({"srun", "sbatch", "nohup", "time", "nice", "exec"})
"""What runs the command that comes behind its own flags."""
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")
_ELLIPSES = ("…", "...")


class _UnderstoodError(BaseException):
    """A parser has read its words; no `except Exception` of a command may catch it."""


def mistakes(text: str, *, console: bool = False) -> list[str]:
    """What is wrong with the commands of a block, a line each; empty if all are understood."""
    found = [(words, mistake_of(words)) for words in commands_of(text, console=console)]
    return [f"{shlex.join(words)}: {mistake}" for words, mistake in found if mistake]


def commands_of(text: str, *, console: bool = False) -> list[list[str]]:
    """The simple commands of a piece of shell, in words; no assignments, redirections, here-documents.

    Args:
        text: the piece.
        console: only lines after a `$` are commands, the others are output.
    """
    text = text.replace("\\\n", " ")
    if console:
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    found: list[list[str]] = []
    for line in _logical_lines(text):
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        skip = False
        for token in lexer:
            if skip:
                skip = False
            elif token in _OPERATORS:
                found.append(words)
                words = []
            elif token in _REDIRECTIONS:
                skip = True
                words = words[:-1] if words and words[-1] in ("1", "2") else words
            else:
                words.append(token)
        found.append(words)
    stripped = (_without_assignments(words) for words in found)
    return [words for words in stripped if words and words[0] not in _SHELL and not re.fullmatch(r"[\d*?]+", words[0])]


def _logical_lines(text: str) -> Iterator[str]:
    """Lines with their continuations and quoted line breaks."""
    held, until = "", ""
    for line in text.splitlines():
        if until:
            until = "" if line.strip() == until else until
            continue
        held = f"{held}\n{line}" if held else line
        try:
            shlex.split(held, comments=True)
        except ValueError:
            continue
        document = re.search(r"<<-?\s*['\"]?(\w+)", held)
        until = document[1] if document else ""
        yield held
        held = ""
    if held:
        raise ValueError(f"a quotation is not closed: {held}")


def _without_assignments(words: Sequence[str]) -> list[str]:
    kept = list(words)
    while kept and (_ASSIGNMENT.match(kept[0]) or kept[0] in ("do", "then", "else", "!", "{", "time", "nice", "env")):
        kept = kept[1:]
    return kept


def mistake_of(words: Sequence[str]) -> str:
    """What the program says against its words; empty if it understands them."""
    program, *given = words
    open_end = any(word in _ELLIPSES for word in given)
    given = [_without_brackets(word) for word in given if word not in _ELLIPSES]
    if program in _LAUNCHERS:
        known = next((n for n, word in enumerate(given) if word in _PROGRAMS), None)
        return "" if known is None else mistake_of(given[known:])
    if program in _OTHERS:
        return ""
    if program not in _PROGRAMS:
        return f"{program} is no program that is known here; add it to tools/docs_commands.py if it is right"
    said = _PROGRAMS[program](given)
    return "" if open_end and re.search("missing|required", said, re.IGNORECASE) else said


def _without_brackets(word: str) -> str:
    """The word of a usage line such as `[--flag value]`; extras (`name[extra]`) keep theirs."""
    if word.startswith("[-"):
        return word[1:]
    return word[:-1] if word.endswith("]") and "[" not in word else word


def _pretrain(given: list[str]) -> str:
    from unveil_pretrain.cli import main

    return _asked(main, given)


def _evalharness(given: list[str]) -> str:
    from unveil_evalharness.cli import main

    return _asked(main, given)


def _python(given: list[str]) -> str:
    match given:
        case ["-c", code, *_]:
            compile(code, "the document", "exec")
            return ""
        case ["-m", "pytest", *rest]:
            paths = [word.partition("::")[0] for word in rest if word.startswith(("tests/", "packages/"))]
            return "".join(f"there is no {path}" for path in paths if not any(ROOT.glob(path.rstrip("/"))))
        case ["-m", "venv" | "pip" | "http.server", *_] | []:
            return ""
        case ["-m", module, *rest]:
            return _module(module, rest)
        case [script, *rest] if (ROOT / script).is_file() and script.startswith("tools/"):
            return _module(Path(script).stem, rest)
        case ["-"] | ["--version"]:
            return ""
        case _:
            return f"python {given[0]} is not looked into here; write it as python -m, or mark the block as run"


def _module(name: str, given: list[str]) -> str:
    """What a module run by `python -m` says."""
    homes = {"unveil_backbones": "unveil_backbones.cli", "unveil_masking": "unveil_masking.show.cli"}
    homes |= {
        "unveil_pretrain": "unveil_pretrain.cli",
        "unveil_evalharness": "unveil_evalharness.cli",
        "demo": "demo.__main__",
    }
    with mock.patch.object(sys, "path", [str(ROOT), str(ROOT / "tools"), *sys.path]):
        try:
            module = importlib.import_module(homes.get(name, name))
        except ModuleNotFoundError as error:
            return f"there is no module {error.name}"
    if "argparse" not in vars(module) and "tyro" not in vars(module) and name not in homes:
        return ""  # it takes words by their places
    return _asked(module.main, given)


def _torchrun(given: list[str]) -> str:
    from torch.distributed.run import get_args_parser

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = get_args_parser().parse_args(given)
    except SystemExit:
        return said.getvalue()
    words = [options.training_script, *options.training_script_args]
    return _python(["-m", *words] if options.module else words)


def _make(given: list[str]) -> str:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", rules, re.M))
    variables = set(re.findall(r"\$[({](\w+)", rules)) | set(re.findall(r"^#   (\w+)=", rules, re.M)) | {"PYTHON"}
    unknown = [word for word in given if "=" not in word and word not in targets]
    unknown += [word for word in given if "=" in word and word.partition("=")[0] not in variables]
    return f"the Makefile knows nothing of {unknown[0]}" if unknown else ""


def _pip(given: list[str]) -> str:
    for word in given:
        local = re.fullmatch(r"\./packages/(\w+)(?:\[([\w,-]+)\])?", word)
        named = re.fullmatch(r"unveil-(\w+)(?:\[([\w,-]+)\])?", word)
        found = local or named
        if not found:
            continue
        file = ROOT / "packages" / found[1] / "pyproject.toml"
        if not file.is_file():
            return f"there is no package {found[1]}"
        extras = tomllib.loads(file.read_text(encoding="utf-8"))["project"].get("optional-dependencies", {})
        wrong = set((found[2] or "").split(",")) - {"", *extras}
        if wrong:
            return f"{found[1]} has no extra {', '.join(sorted(wrong))}"
    return ""


def _file(given: list[str]) -> str:
    script = next((word for word in given if not word.startswith("-")), "")
    return "" if not script or "-c" in given or (ROOT / script).exists() else f"there is no {script}"


_PROGRAMS: Final[dict[str, Callable[[list[str]], str]]] = {
    "pretrain": _pretrain,
    "evalharness": _evalharness,
    "python": _python,
    "python3": _python,
    "torchrun": _torchrun,
    "make": _make,
    "pip": _pip,
    "bash": _file,
    "pytest": lambda given: _python(["-m", "pytest", *given]),
}


def _asked(main: Callable[..., Any], given: Sequence[str]) -> str:
    """What a command says against its flags, where its parser gives the word back instead of going on."""
    import tyro

    real_tyro, real_argparse = tyro.cli, argparse.ArgumentParser.parse_args

    def tyro_then_stop(*words: Any, **settings: Any) -> NoReturn:
        real_tyro(*words, **settings)
        raise _UnderstoodError

    def argparse_then_stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> NoReturn:
        real_argparse(self, args, namespace)
        raise _UnderstoodError

    said = io.StringIO()
    try:
        with (
            mock.patch.object(tyro, "cli", tyro_then_stop),
            mock.patch.object(argparse.ArgumentParser, "parse_args", argparse_then_stop),
            mock.patch.object(sys, "argv", ["program", *given]),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(said),
        ):
            code = main(list(given)) if inspect.signature(main).parameters else main()
    except _UnderstoodError:
        return ""
    except SystemExit as stop:
        code = stop.code
    return " ".join(said.getvalue().split()) or f"exit code {code}" if code else ""
