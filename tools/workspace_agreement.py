"""Where workspace.toml and the rest of the repository disagree, one sentence each; an empty list is agreement."""

import re
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from workspace_manifest import Member, Workspace, read_toml, read_workspace

__all__ = ["disagreements"]

_FILES = ("README.md", "CHANGELOG.md", "LICENSE")


def disagreements(root: Path) -> list[str]:
    """Every disagreement in the clone at `root`; missing folders and files come first, and alone."""
    workspace = read_workspace(root)
    found = list(_folders(workspace))
    if found:
        return found
    for member in workspace.members:
        pyproject = read_toml(workspace.folder(member) / "pyproject.toml")
        found += _names(workspace, member, pyproject)
        found += _siblings(workspace, member, pyproject)
        found += _versions(workspace, member, pyproject)
    found += _third_party(workspace)
    found += _root_tools(workspace)
    return found


def _requirements(pyproject: dict) -> Iterator[Requirement]:
    """Every requirement of a package, extras included."""
    project = pyproject["project"]
    for texts in (project["dependencies"], *project.get("optional-dependencies", {}).values()):
        yield from (Requirement(text) for text in texts)


def _folders(workspace: Workspace) -> Iterator[str]:
    listed = {member.name for member in workspace.members}
    there = {path.parent.name for path in (workspace.root / "packages").glob("*/pyproject.toml")}
    for name in sorted(listed ^ there):
        yield f"member {name}: " + ("has no packages/ folder" if name in listed else "is not in workspace.toml")
    for member in workspace.members:
        source = workspace.folder(member) / "src"
        for path in [*(workspace.folder(member) / name for name in _FILES), source / member.module / "py.typed"]:
            if not path.is_file():
                yield f"{member.name}: {path.relative_to(workspace.root)} is missing"
        modules = sorted(path.name for path in source.glob("*") if path.is_dir())
        if modules != [member.module]:
            yield f"{member.name}: src/ holds {modules}, workspace.toml says {member.module}"


def _names(workspace: Workspace, member: Member, pyproject: dict) -> Iterator[str]:
    project = pyproject["project"]
    if project["name"] != member.distribution:
        yield f"{member.name}: distribution is {project['name']}, workspace.toml says {member.distribution}"
    if project["requires-python"] != workspace.python:
        yield f"{member.name}: requires-python {project['requires-python']}, workspace.toml says {workspace.python}"
    if pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] != [f"src/{member.module}"]:
        yield f"{member.name}: the wheel is not made of src/{member.module} alone"
    unknown = set(member.extras) - set(project.get("optional-dependencies", {}))
    if unknown:
        yield f"{member.name}: extras {sorted(unknown)} of workspace.toml are not in its pyproject.toml"


def _siblings(workspace: Workspace, member: Member, pyproject: dict) -> Iterator[str]:
    by_distribution = {sibling.distribution: sibling for sibling in workspace.members}
    declared = set()
    for requirement in _requirements(pyproject):
        sibling = by_distribution.get(requirement.name)
        if sibling is None or sibling == member:  # an `all` extra names its own distribution
            continue
        declared.add(sibling.name)
        wanted = workspace.siblings.get(sibling.name, "nothing")
        if requirement.specifier != SpecifierSet(wanted if wanted != "nothing" else ""):
            yield f"{member.name}: requires {requirement}, workspace.toml says {sibling.name} {wanted}"
        version = read_toml(workspace.folder(sibling) / "pyproject.toml")["project"]["version"]
        if version not in requirement.specifier:
            yield f"{member.name}: requires {requirement}, but {sibling.name} is {version}"
    if declared != set(member.requires):
        yield f"{member.name}: requires siblings {sorted(declared)}, workspace.toml says {sorted(member.requires)}"


def _versions(workspace: Workspace, member: Member, pyproject: dict) -> Iterator[str]:
    version = pyproject["project"]["version"]
    changelog = workspace.folder(member) / "CHANGELOG.md"
    heads = re.findall(r"^## (\S+)", changelog.read_text(encoding="utf-8"), re.M)
    if heads[:1] != [version]:
        yield f"{member.name}: version {version}, but CHANGELOG.md begins with {''.join(heads[:1]) or 'no version'}"
    package = (workspace.folder(member) / "src" / member.module / "__init__.py").read_text(encoding="utf-8")
    literal = re.search(r'^__version__ = "(.*)"', package, re.M)
    if literal and literal.group(1) != version:
        yield f"{member.name}: version {version}, but __version__ is {literal.group(1)}"


def _third_party(workspace: Workspace) -> Iterator[str]:
    """The spelling of every third-party requirement, and its pin."""
    own = {member.distribution for member in workspace.members}
    used = set()
    for member in workspace.members:
        for requirement in _requirements(read_toml(workspace.folder(member) / "pyproject.toml")):
            if requirement.name in own:
                continue
            used.add(requirement.name)
            wanted = workspace.third_party.get(requirement.name)
            if wanted is None or requirement.specifier != SpecifierSet(wanted):
                yield f"{member.name}: requires {requirement}, workspace.toml says {wanted}"
    yield from (f"third-party {name}: no package requires it" for name in sorted(set(workspace.third_party) - used))
    constraints = (workspace.root / "constraints.txt").read_text(encoding="utf-8")
    lines = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", constraints, re.M)
    pins: dict[str, str] = {canonicalize_name(name): version for name, version in lines}
    for name, wanted in workspace.third_party.items():
        if name not in pins:
            yield f"third-party {name}: constraints.txt does not pin it"
        elif pins[name] not in SpecifierSet(wanted):
            yield f"third-party {name}: constraints.txt pins {pins[name]}, workspace.toml says {wanted}"
    if pins.get("opencv-python") != pins.get("opencv-python-headless"):
        yield "constraints.txt: opencv-python and opencv-python-headless differ; the second overwrites the first"


def _root_tools(workspace: Workspace) -> Iterator[str]:
    """The member lists that the root's tools need in their own tables."""
    tools = read_toml(workspace.root / "pyproject.toml")["tool"]
    folders = [f"packages/{member.name}" for member in workspace.members]
    modules = {member.module for member in workspace.members}
    layers = {name.strip() for layer in tools["importlinter"]["contracts"][0]["layers"] for name in layer.split("|")}
    if tools["uv"]["workspace"]["members"] != ["packages/*"]:
        yield "tool.uv.workspace: members is not packages/*"
    if not set(tools["basedpyright"]["include"]) >= {f"{folder}/src" for folder in folders}:
        yield "tool.basedpyright: include does not list every packages/*/src"
    if not set(tools["pytest"]["ini_options"]["testpaths"]) >= {f"{folder}/tests" for folder in folders}:
        yield "tool.pytest: testpaths does not list every packages/*/tests"
    if set(tools["importlinter"]["root_packages"]) != modules:
        yield "tool.importlinter: root_packages are not the members of workspace.toml"
    if layers != modules:
        yield "tool.importlinter: the layers are not the members of workspace.toml"
