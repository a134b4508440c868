"""Read workspace.toml, and print from it what the Makefile needs. Standard library only: it runs before any install.

python tools/workspace_manifest.py requirements     # pip requirements of a development install, one a line
python tools/workspace_manifest.py install pretrain # the documented pip line of one package
"""

import argparse
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LightImport", "Member", "Workspace", "main", "read_toml", "read_workspace"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One package of the workspace."""

    name: str
    """Folder under packages/."""
    distribution: str
    module: str
    requires: tuple[str, ...]
    """Names of sibling members."""
    extras: tuple[str, ...]
    """Extras that a development install takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LightImport:
    """A module whose import must not load heavy modules."""

    module: str
    never: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """The manifest, parsed."""

    root: Path
    python: str
    members: tuple[Member, ...]
    siblings: dict[str, str]
    third_party: dict[str, str]
    light: tuple[LightImport, ...]

    def member(self, name: str) -> Member:
        """The member called `name`.

        Raises:
            KeyError: with the names there are.
        """
        for member in self.members:
            if member.name == name:
                return member
        raise KeyError(f"no member {name!r} in workspace.toml; there are {', '.join(m.name for m in self.members)}")

    def folder(self, member: Member) -> Path:
        """The member's folder."""
        return self.root / "packages" / member.name

    def with_siblings(self, name: str) -> tuple[Member, ...]:
        """The siblings a member needs, each before what needs it, and the member itself last."""
        wanted: list[Member] = []
        for sibling in self.member(name).requires:
            wanted += [member for member in self.with_siblings(sibling) if member not in wanted]
        return (*wanted, self.member(name))

    def install_line(self, name: str) -> str:
        """The documented command that installs one package from the root of a clone."""
        return "pip install " + " ".join(f"./packages/{member.name}" for member in self.with_siblings(name))


def read_toml(path: Path) -> dict:
    """A TOML file as a dictionary."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def read_workspace(root: Path) -> Workspace:
    """The manifest at the root of a clone.

    Raises:
        KeyError: a table or key is missing.
        TypeError: a member has a key that is not known.
    """
    manifest = read_toml(root / "workspace.toml")
    return Workspace(
        root=root,
        python=manifest["workspace"]["python"],
        members=tuple(
            Member(**{"name": name, **table, "requires": tuple(table["requires"]), "extras": tuple(table["extras"])})
            for name, table in manifest["members"].items()
        ),
        siblings=manifest["siblings"],
        third_party=manifest["third-party"],
        light=tuple(LightImport(module=name, never=tuple(t["never"])) for name, t in manifest["light"].items()),
    )


def _requirements(workspace: Workspace) -> list[str]:
    """Every member, editable, with its extras; then the tools of the root's `dev` group."""
    editable = []
    for member in workspace.members:
        extras = f"[{','.join(member.extras)}]" if member.extras else ""
        editable.append(f"-e ./packages/{member.name}{extras}")
    return editable + read_toml(workspace.root / "pyproject.toml")["dependency-groups"]["dev"]


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("requirements")
    commands.add_parser("install").add_argument("member")
    options = parser.parse_args()
    workspace = read_workspace(Path(__file__).resolve().parents[1])
    lines = [workspace.install_line(options.member)] if options.command == "install" else _requirements(workspace)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
