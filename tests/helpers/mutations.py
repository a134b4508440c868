"""Damage done to good input, in ways that its structure invites: trees of JSON and TOML, words, text and bytes.

Every function takes a `random.Random` and draws from nothing else. Hypothesis passes one of its own (`st.randoms`), so
that it can shrink what it finds; a plain one, or one fed by a coverage-guided fuzzer, does as well.
"""

import copy
import json
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

__all__ = [
    "NASTY_TEXTS",
    "NASTY_VALUES",
    "as_toml",
    "mutated_bytes",
    "mutated_json",
    "mutated_lines",
    "mutated_text",
    "mutated_toml",
    "mutated_tree",
    "mutated_words",
]

NASTY_TEXTS = (
    "", " ", "0", "-1", "nan", "inf", "1e999", "1e-400", "9" * 400, "null", "true", "None", "\x00", "a\x00b", "\n",
    "\r\n", "\x1b[31m", "\ud83d", "\ufeff", "é", "\u202e", "..", "../../etc/passwd", "/", "~", "C:\\x", "{0..3}", "{",
    "}", "{c}", "{}", "%s", "%(a)s", "$HOME", "${X}", "`id`", "<script>", "'", '"', "\\", "::", "=", ",", ",,", "1x2",
    "0x0", "--", "-", "--help", "@", "*", "[", "]", "[!]", "?", "#", "s3://", "http://[", "pipe:cat", "file://", "::x",
    "timm:", "open_clip:/", "a" * 3000, "½", "٣", "1_000", "0b1", "é" * 300,
)  # fmt: skip
"""Words that parsers tend to trip over."""

NASTY_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.0, -0.0, 0.5, 1e308, -1e308, 5e-324,
    math.nan, math.inf, -math.inf, [], {}, [[]], [None], {"": None}, [[[[]]]], {"a": {"b": {}}}, [0, "x", None],
)  # fmt: skip
"""Values of other types and sizes than the ones expected."""

_LETTERS = "abcxyzABC0123456789 \t\n\r.,:;/\\|-+_=~!?@#$%^&*()[]{}<>'\"`éß中\x00\x07\x7f\u2028\ufeff\U0001f600"


def mutated_bytes(random: Random, data: bytes) -> bytes:
    """One to four cuts, flips, splices, repetitions or runs of one byte."""
    content = bytearray(data)
    for _ in range(random.randint(1, 4)):
        _damage_once(random, content)
    return bytes(content)


def _damage_once(random: Random, content: bytearray) -> None:
    size = len(content)
    place, kind = random.randint(0, size), random.randint(0, 7)
    length = min(size - place, random.randint(1, 64))
    if kind == 0:
        del content[place:]
    elif kind == 1:
        del content[place : place + length]
    elif kind == 2:
        content[place:place] = random.randbytes(random.randint(1, 16))
    elif kind == 3:
        content[place:place] = content[random.randint(0, size) :][: random.randint(1, 256)]
    elif kind == 4:
        content[place : place + length] = bytes([random.choice((0, 255, 0x80, 0x0A, 0x7B))]) * length
    elif kind == 5:
        content[place : place + 8] = random.choice((0, 1, 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little")
    elif size:
        content[place % size] ^= 1 << random.randint(0, 7)


def mutated_text(random: Random, text: str) -> str:
    """One to four cuts, replaced letters, swapped pieces or inserted nasty words."""
    for _ in range(random.randint(1, 4)):
        size = len(text)
        place, kind = random.randint(0, size), random.randint(0, 5)
        if kind == 0:
            text = text[:place]
        elif kind == 1:
            text = text[:place] + text[place + random.randint(1, 20) :]
        elif kind == 2:
            text = text[:place] + random.choice(_LETTERS) + text[place + 1 :]
        elif kind == 3:
            text = text[:place] + random.choice(NASTY_TEXTS) + text[place:]
        elif kind == 4:
            text = text[place:] + text[:place]
        else:
            start = random.randint(0, size)
            text = text[:place] + text[start : start + random.randint(1, 40)] + text[place:]
    return text


def mutated_lines(random: Random, text: str) -> str:
    """Lines of a text file left out, doubled, swapped, emptied or changed within."""
    lines = text.split("\n")
    for _ in range(random.randint(1, 3)):
        place, kind = random.randint(0, len(lines) - 1), random.randint(0, 4)
        if kind == 0 and len(lines) > 1:
            del lines[place]
        elif kind == 1:
            lines.insert(place, lines[random.randint(0, len(lines) - 1)])
        elif kind == 2:
            other = random.randint(0, len(lines) - 1)
            lines[place], lines[other] = lines[other], lines[place]
        elif kind == 3:
            lines[place] = random.choice(NASTY_TEXTS)
        else:
            lines[place] = mutated_text(random, lines[place])
    return "\n".join(lines)


def mutated_tree(random: Random, tree: Any) -> Any:
    """A deep copy of a JSON value with one to three of its nodes replaced, renamed, removed, doubled or swapped."""
    tree = copy.deepcopy(tree)
    for _ in range(random.randint(1, 3)):
        parents = [node for node in _nodes(tree) if isinstance(node, dict | list) and node]
        if not parents:
            return random.choice(NASTY_VALUES)
        _change_within(random, random.choice(parents))
    return tree


def _change_within(random: Random, parent: Any) -> None:
    keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
    key, kind = random.choice(keys), random.randint(0, 6)
    if kind == 0:
        del parent[key]
    elif kind == 1:
        parent[key] = copy.deepcopy(parent[random.choice(keys)])
    elif kind == 2 and isinstance(parent, dict):
        parent[random.choice(NASTY_TEXTS)] = parent.pop(key)
    elif kind == 2:
        parent.insert(key, copy.deepcopy(parent[key]))
    elif kind == 3:
        parent[key] = random.choice(NASTY_TEXTS)
    elif kind == 4:
        parent[key] = _near(random, parent[key])
    else:
        parent[key] = copy.deepcopy(random.choice(NASTY_VALUES))


def _near(random: Random, value: Any) -> Any:
    """Another value of the same type, where that makes sense."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + random.choice((-1, 1, 10**6, -(10**6)))
    if isinstance(value, float):
        return value * random.choice((-1.0, 0.0, 1e6, 1e-6))
    return mutated_text(random, value) if isinstance(value, str) else [value]


def _nodes(tree: Any) -> list[Any]:
    found, open_nodes = [], [tree]
    while open_nodes:
        node = open_nodes.pop()
        found.append(node)
        if isinstance(node, dict):
            open_nodes += node.values()
        elif isinstance(node, list):
            open_nodes += node
    return found


def mutated_json(random: Random, tree: Any) -> bytes:
    """A JSON file made of a changed tree; one in four is damaged as text or bytes besides, one in forty very deep."""
    choice = random.randint(0, 39)
    if choice == 0:
        return b'{"a":' * 3000 if random.randint(0, 1) else b"[" * 100_000 + b"]" * 100_000
    encoded = json.dumps(mutated_tree(random, tree)).encode("utf-8", "surrogatepass")
    if choice < 6:
        return mutated_bytes(random, encoded)
    return mutated_text(random, encoded.decode()).encode("utf-8", "surrogatepass") if choice < 11 else encoded


def mutated_toml(random: Random, tree: Any) -> bytes:
    """A TOML file made of a changed tree; one in four is damaged as lines or bytes besides, one in forty is endless."""
    text, choice = as_toml(mutated_tree(random, tree)), random.randint(0, 39)
    if choice == 0:
        return random.choice((b"a = " + b"[" * 20_000, b"a = " + b"{a = " * 20_000, b"a = " + b"9" * 5000)) + b"\n"
    if choice < 6:
        return mutated_bytes(random, text.encode("utf-8", "surrogatepass"))
    return (mutated_lines(random, text) if choice < 11 else text).encode("utf-8", "surrogatepass")


def as_toml(tree: Any) -> str:
    """TOML with inline tables; what TOML has no words for (null, a root that is no table) becomes invalid TOML."""
    if not isinstance(tree, dict):
        return _inline(tree)
    return "".join(f"{json.dumps(str(key))} = {_inline(value)}\n" for key, value in tree.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_inline(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def mutated_words(random: Random, words: Sequence[str], vocabulary: Sequence[str]) -> list[str]:
    """A command line with words left out, doubled, swapped, or replaced by others of `vocabulary` or by nasty ones."""
    line = list(words)
    fresh: Sequence[Callable[[], str]] = (
        lambda: random.choice(vocabulary),
        lambda: random.choice(NASTY_TEXTS),
        lambda: mutated_text(random, random.choice(vocabulary)),
        lambda: f"{random.choice(vocabulary)}={random.choice(NASTY_TEXTS)}",
    )
    for _ in range(random.randint(1, 4)):
        place, kind = random.randint(0, len(line)), random.randint(0, 3)
        if kind == 0:
            del line[place : place + 1]
        elif kind == 1:
            line.insert(place, random.choice(fresh)())
        elif kind == 2:
            line[place : place + 1] = [random.choice(fresh)()]
        else:
            line[place:place] = line[: random.randint(1, 3)]
    return line
