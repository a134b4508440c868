"""Options from the command line by tyro, whose complaints become one line each."""

import contextlib
import difflib
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from unveil_backbones.limits import parse_toml

from unveil_evalharness.errors import UsageError

if TYPE_CHECKING:
    import tyro

__all__ = ["nearest", "parse_options", "with_config"]

_Options = TypeVar("_Options")


def parse_options(kind: type[_Options], command: str, arguments: Sequence[str]) -> _Options:
    """Options from the command line; a mistake becomes one line instead of tyro's box.

    Raises:
        UsageError: what tyro says about the arguments.
    """
    import tyro

    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, prog=f"evalharness {command}", args=list(arguments), registry=_comma_list_registry())
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        from unveil_evalharness.complaints import one_line

        said = one_line(complaint.getvalue(), kind, arguments)
        raise UsageError(f"{said} (see evalharness {command} --help)") from None


def with_config(arguments: Sequence[str]) -> list[str]:
    """The arguments behind those of the TOML file that ``--config`` among them names, so that the former count.

    Keys are the names of options; lists are those that commas separate, and tables those that a dot does.

    Raises:
        UsageError: the file is not there, is not TOML, or holds what no option can be.
    """
    words = list(arguments)
    files = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    files += [after for word, after in itertools.pairwise(words) if word == "--config"]
    if not files:
        return words
    try:
        content = parse_toml(Path(files[-1]).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {files[-1]}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"--config {files[-1]} is not TOML: {error}") from error
    return [*_config_words(content, files[-1]), *words]


def _config_words(content: Mapping[str, Any], file: str, prefix: str = "") -> list[str]:
    words: list[str] = []
    for key, value in content.items():
        name = f"{prefix}{key}".replace("_", "-")
        match value:
            case dict():
                words += _config_words(value, file, f"{name}.")
            case bool():
                words.append(f"--{name}" if value else f"--no-{name}")
            case list():
                words += [f"--{name}", ",".join(str(member) for member in value)]
            case str() | int() | float():
                words += [f"--{name}", str(value)]
            case _:
                raise UsageError(f"--config {file}: {key} is {value!r}; use text, numbers, true, false or lists")
    return words


def nearest(word: str, words: Sequence[str]) -> str:
    """The end of a message about an unknown word: the word that may be meant, and all there are."""
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{hint} (one of {', '.join(words)})"


def _comma_list_registry() -> "tyro.constructors.ConstructorRegistry":
    """Reads ``tuple[X, ...]`` options as ``--name a,b``, as lm-evaluation-harness does.

    Positional tuples (``correlate OUT OUT``) are left to tyro.
    """
    from tyro.conf import Positional
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def comma_list(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        members = get_args(info.type)
        if get_origin(info.type) is not tuple or len(members) != 2 or members[1] is not Ellipsis:
            return None
        if Positional in info.markers:
            return None
        member = members[0]
        name = {Path: "PATH", int: "INT"}.get(member, "NAME")
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=f"{name}[,{name}…]",
            instance_from_str=lambda words: tuple(member(word) for word in words[0].split(",") if word),
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: [",".join(str(item) for item in value)],
        )

    return registry
