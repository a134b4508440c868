"""The licences of everything that the four packages bring along, with all their extras, from what is installed.

    python tools/licences.py --check      # every dependency has a known, allowed licence; exit status 1 otherwise
    python tools/licences.py --write      # docs/licences.md

Read are the metadata of the installed distributions (License-Expression, else License, else classifiers). Tools of
development are not among them: nobody who installs a package gets them.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = [
    "ALLOWED",
    "EXCEPTIONS",
    "Dependency",
    "dependencies",
    "licence_of",
    "page",
    "problems",
    "without_cuda_build",
]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
MEMBERS = ("unveil-masking", "unveil-backbones", "unveil-pretrain", "unveil-evalharness")

ALLOWED = frozenset(
    {
        "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
        "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Unlicense", "Zlib",
    }
)  # fmt: skip
"""Licences that ask for their text and the names of authors, and nothing of the programs that use the code."""

EXCEPTIONS: Mapping[str, tuple[str, str]] = {
    "tqdm": ("MPL-2.0 AND MIT", "copyleft of its own files only, which are used unchanged"),
}
"""Distribution: its licence, and why it is accepted all the same."""

_CUDA_BUILD = re.compile(r"(nvidia|cuda)-.*|triton")
"""What PyTorch's build for CUDA brings beside what its build for the CPU does: of that machine, and not of ours."""

# What metadata say in other words than the list of SPDX.
_WORDS: Mapping[str, str] = {
    "2-clause bsd": "BSD-2-Clause", "2-clause bsd license": "BSD-2-Clause", "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0", "apache license 2.0": "Apache-2.0", "apache software license": "Apache-2.0",
    "apache license": "Apache-2.0", "apache license, version 2.0": "Apache-2.0", "bsd 2-clause license": "BSD-2-Clause",
    "bsd 3-clause license": "BSD-3-Clause", "bsd license": "BSD", "freebsd": "BSD-2-Clause", "mit license": "MIT",
    "isc license (iscl)": "ISC", "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0", "the unlicense (unlicense)": "Unlicense", "psf": "PSF-2.0",
}  # fmt: skip
_KNOWN = {word.lower(): word for word in (*ALLOWED, "MPL-2.0")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Dependency:
    """One installed distribution."""

    name: str
    version: str
    licence: str
    """In SPDX's words where the metadata allow it; "unknown" where they say nothing."""
    brought_by: tuple[str, ...]
    """Packages of ours, with the extra in brackets where only that brings it."""


def dependencies() -> list[Dependency]:
    """The closure of what the members require, by name; members themselves and `_CUDA_BUILD` left out."""
    brought: dict[str, set[str]] = {}
    for member in MEMBERS:
        plain = _closure(member, frozenset())
        short = member.removeprefix("unveil-")
        for name in plain:
            brought.setdefault(name, set()).add(short)
        for extra in sorted(_project(member).get("optional-dependencies", {})):
            if extra != "all":  # the sum of others
                for name in _closure(member, frozenset({extra})) - plain:
                    brought.setdefault(name, set()).add(f"{short}[{extra}]")
    found: list[Dependency] = []
    for name in without_cuda_build(brought):
        distribution = metadata.distribution(name)
        licence = licence_of(distribution.metadata)
        found.append(
            Dependency(
                name=name, version=distribution.version, licence=licence, brought_by=tuple(sorted(brought[name]))
            )
        )
    return found


def without_cuda_build(names: Iterable[str]) -> list[str]:
    """Distributions by name, without those that only PyTorch's build for CUDA brings."""
    return sorted(name for name in names if not _CUDA_BUILD.fullmatch(name))


def _closure(name: str, extras: frozenset[str]) -> set[str]:
    found: set[str] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(name, extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        entry = waiting.pop()
        if entry in seen:
            continue
        seen.add(entry)
        for requirement in _required(*entry):
            wanted = str(canonicalize_name(requirement.name))
            waiting.append((wanted, frozenset(requirement.extras)))
            if wanted not in MEMBERS:
                found.add(wanted)
    return found


def _required(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    for line, extra in _lines(name):
        requirement = Requirement(line)
        if extra is not None and extra not in extras:
            continue
        environments = [{"extra": one} for one in extras or {""}]
        if requirement.marker is None or any(requirement.marker.evaluate(one) for one in environments):
            yield requirement


def _lines(name: str) -> Sequence[tuple[str, str | None]]:
    """Requirements with the extra they belong to; of members from their pyproject, which is newer than metadata."""
    if name in MEMBERS:
        project = _project(name)
        extras: dict[str, list[str]] = project.get("optional-dependencies", {})
        return [(line, None) for line in project.get("dependencies", [])] + [
            (line, extra) for extra, lines in extras.items() for line in lines
        ]
    try:
        return [(line, None) for line in metadata.distribution(name).requires or []]
    except metadata.PackageNotFoundError:
        raise SystemExit(f"tools/licences.py: {name} is not installed; run `make install` first") from None


def _project(member: str) -> dict[str, Any]:
    file = ROOT / "packages" / member.removeprefix("unveil-") / "pyproject.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))["project"]


def licence_of(about: "metadata.PackageMetadata") -> str:
    """The licence as SPDX writes it, as far as the metadata can be understood; "unknown" otherwise."""
    if "License-Expression" in about:
        return str(about["License-Expression"])
    classifiers = [text.rpartition(" :: ")[2] for text in about.get_all("Classifier") or () if "License ::" in text]
    classified = sorted({_normal(text) for text in classifiers} - {"OSI Approved"})
    text = str(about["License"]) if "License" in about else ""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    written = _normal(first) if first and first.upper() != "UNKNOWN" else ""
    if written and (_atoms(written) <= set(_KNOWN.values()) or not classified):
        return written
    return " OR ".join(classified) if classified else written or "unknown"


def _normal(text: str) -> str:
    key = text.strip().lower()
    return _KNOWN.get(key) or _WORDS.get(key) or text.strip()


def _atoms(expression: str) -> set[str]:
    """The single licences of an expression."""
    return {part.strip() for part in re.split(r"\bAND\b|\bOR\b", expression.replace("(", " ").replace(")", " "))}


def problems(found: list[Dependency]) -> list[str]:
    """What is not allowed, and exceptions that nothing needs."""
    said: list[str] = []
    for one in found:
        exception = EXCEPTIONS.get(one.name)
        if exception is not None and exception[0] == one.licence:
            continue
        choices = [_atoms(choice) for choice in re.split(r"\bOR\b", one.licence)]
        if not any(choice <= ALLOWED for choice in choices):
            said.append(
                f"{one.name} {one.version} ({', '.join(one.brought_by)}) is under {one.licence[:60]!r}, which is not "
                "in ALLOWED; leave it out, or give a reason in EXCEPTIONS"
            )
    unused = sorted(set(EXCEPTIONS) - {one.name for one in found})
    return said + [f"EXCEPTIONS names {name}, which nothing brings (any more)" for name in unused]


def page(found: list[Dependency]) -> str:
    """docs/licences.md."""
    lines = [
        "# Licences of what is installed along", "",
        "Written by `python tools/licences.py --write` from the metadata of the installed distributions; "
        "`tests/security/test_licences.py` checks that the list is whole and that every licence is an allowed one. "
        "The four packages themselves are under [Apache-2.0](../LICENSE). Versions are those of the tested set "
        "(`constraints.txt`).", "",
        "A package in the last column brings the dependency; one with brackets brings it only with that extra.", "",
        "| distribution | version | licence | brought by |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {one.name} | {one.version} | {one.licence} | {', '.join(one.brought_by)} |" for one in found]
    lines += ["", "## Exceptions", ""]
    lines += [f"- {name} ({licence}): {reason}." for name, (licence, reason) in sorted(EXCEPTIONS.items())]
    lines += [
        "", "## What this list does not see", "",
        "Wheels may hold libraries of others in binary form (those of `av`, `opencv-python`, `scipy` and `torch` do, "
        "and CUDA builds of PyTorch bring NVIDIA's own packages under NVIDIA's terms, and Triton). Their licences are "
        "files inside the wheels, not metadata; whoever passes binaries on has to read those.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    """Check, or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="write docs/licences.md")
    parser.add_argument("--check", action="store_true", help="only check")
    given = parser.parse_args()
    found = dependencies()
    if given.write:
        PAGE.write_text(page(found), encoding="utf-8")
        print(PAGE.relative_to(ROOT))
    said = problems(found)
    print("\n".join(said) if said else f"{len(found)} dependencies, every licence is allowed")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
