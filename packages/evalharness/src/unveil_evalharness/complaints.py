"""What tyro says of words that it cannot read, as one line: which word is wrong, and what may be meant."""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import get_args

from tyro.conf import Positional

__all__ = ["one_line", "option_names"]

_UNRECOGNISED = "Unrecognized options:"


def one_line(box: str, kind: type, given: Sequence[str]) -> str:
    """The complaint without the frame that tyro draws around it.

    A word that no option has comes first, for what it was meant to be is then missing.

    Args:
        box: what tyro printed.
        kind: the options' dataclass.
        given: the words of the command line.
    """
    parts = _parts(box)
    unknown = _unknown(given, option_names(kind))
    missing = _missing(parts[0])
    if unknown:
        meant = [near for near in unknown.values() if near]
        hint = f"; did you mean {', '.join(meant)}?" if meant else ""
        others = [name for name in missing if name not in meant]
        also = f"{'' if meant else ';'} also missing: {', '.join(others)}" if others else ""
        return f"unknown option{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}{hint}{also}"
    surplus = _surplus(parts, given)
    if missing:
        return "missing " + ", ".join(missing) + (f"; {surplus}" if surplus else "")
    return surplus or re.sub(r"^Error parsing \w+Options: ", "", _joined(parts[0]))


def option_names(kind: type, prefix: str = "") -> list[str]:
    """The options of a dataclass as they are typed; those of a dataclass inside it have its name and a dot."""
    names: list[str] = []
    for field in dataclasses.fields(kind):
        name = f"{prefix}{field.name}".replace("_", "-")
        if Positional in get_args(field.type)[1:]:
            continue
        if isinstance(field.type, type) and dataclasses.is_dataclass(field.type):
            names += option_names(field.type, f"{name}.")
            continue
        names.append(f"--{name}")
        if field.type is bool:
            negated = ".".join([*name.split(".")[:-1], f"no-{name.split('.')[-1]}"])
            names.append(f"--{negated}")
    return names


def _parts(box: str) -> list[list[str]]:
    """The lines between the rules of the frame, indented as they are.

    The frame is made of box characters, or of ASCII where stdout is not UTF-8; then its title is no part of it.
    """
    framed = "╭" in box
    lines = [line.strip("│").rstrip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    parts: list[list[str]] = [[]]
    for line in lines:
        if len(line.strip()) > 3 and not line.strip(" ─-"):
            parts.append([])
        elif line.strip():
            parts[-1].append(line)
    return parts if framed or len(parts) == 1 else parts[1:]


def _unknown(given: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Options that are not known, each with the known one that may be meant, or with nothing."""
    bare = [name.lstrip("-") for name in known]
    found: dict[str, str] = {}
    for word in given:
        name = word.partition("=")[0].replace("_", "-")
        if re.match(r"--?[A-Za-z]", word) and name not in (*known, "-h", "--help"):
            near = difflib.get_close_matches(name.lstrip("-"), bare, n=1)
            typed = word.partition("=")[0]
            found[typed if typed.isprintable() else ascii(typed)] = f"--{near[0]}" if near else ""
    return found


def _missing(lines: Sequence[str]) -> list[str]:
    """What is required and not given: an option by its name, an argument without one by what it is."""
    if not lines or not lines[0].strip().startswith("Missing from"):
        return []
    header = next((i for i, line in enumerate(lines) if line.endswith(":")), 0)  # it goes on where the frame is narrow
    indented = [(len(line) - len(line.lstrip()), line.strip()) for line in lines[header + 1 :]]
    outer = min((indent for indent, _ in indented), default=0)
    entries: list[list[str]] = []
    for indent, text in indented:
        if indent == outer or not entries:
            entries.append([text])
        else:
            entries[-1].append(text)
    return [_named(head, " ".join(text)) for head, *text in entries]


def _named(head: str, text: str) -> str:
    name = head.split()[0]
    what = text.removesuffix("(required)").strip().split(". ")[0].removesuffix(".")
    if name.startswith("-") or not what:
        return name
    return f"{name} ({what[0].lower()}{what[1:]})" if what[1:2].islower() else f"{name} ({what})"


def _surplus(parts: Sequence[Sequence[str]], given: Sequence[str]) -> str:
    """The words that belong to no option, after which they stand, and why that may be; empty if there are none."""
    said = next((text for text in map(_joined, parts) if text.startswith(_UNRECOGNISED)), "")
    words = said.removeprefix(_UNRECOGNISED).replace(",", " ").split()
    if not words:
        return ""
    before = given[: given.index(words[0])] if words[0] in given else []
    option = next((word for word in reversed(before) if word.startswith("--")), "")
    text = f"nothing takes {', '.join(map(repr, words))}"
    if not option:
        return text
    return f"{text} after {option}: join several values by commas, and quote spaces, braces and stars"


def _joined(lines: Sequence[str]) -> str:
    return " ".join(" ".join(lines).split())
