"""Rules about the files of the repository themselves."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from workspace_manifest import Member, Workspace, read_toml, read_workspace

MAX_LINES = 400
# Split, so that this file does not contain what it forbids.
FORBIDDEN = tuple(
    first + second
    for first, second in [
        ("/wo", "rk/"),
        ("/opt/", "wheels"),
        ("/opt/", "pypi"),
        ("/ho", "me/"),
        ("/ro", "ot/"),
        ("pypi", ".org"),
        ("download.pytorch", ".org"),
        ("pythonhosted", ".org"),
    ]
)


def repository_files(root: Path) -> list[Path]:
    """Files that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return [path for name in listed.stdout.split("\0") if name and (path := root / name).is_file()]


def too_long(files: list[Path]) -> list[str]:
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in files if path.suffix == ".py"}
    return [f"{path}: {length} lines" for path, length in lengths.items() if length > MAX_LINES]


def forbidden_strings(files: list[Path]) -> list[str]:
    found = []
    for path in files:
        text = path.read_bytes().decode("utf-8", errors="replace")
        found += [f"{path}: contains {word}" for word in FORBIDDEN if word in text]
    return found


def test_no_module_is_too_long(root):
    assert too_long(repository_files(root)) == []


def test_the_length_check_can_fail(tmp_path):
    (tmp_path / "long.py").write_text("x = 1\n" * (MAX_LINES + 1))
    (tmp_path / "fine.py").write_text("x = 1\n" * MAX_LINES)
    assert too_long(sorted(tmp_path.iterdir())) == [f"{tmp_path / 'long.py'}: {MAX_LINES + 1} lines"]


def test_nothing_names_one_machine_or_one_index(root):
    assert forbidden_strings(repository_files(root)) == []


@pytest.mark.parametrize("word", FORBIDDEN)
def test_the_string_check_can_fail(tmp_path, word):
    (tmp_path / "a.md").write_text(f"see {word}somewhere\n")
    assert forbidden_strings([tmp_path / "a.md"]) == [f"{tmp_path / 'a.md'}: contains {word}"]


def imported_modules(folder: Path) -> dict[str, Path]:
    """Top-level names of everything imported below a folder, inside functions too, with one file each."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0]: path for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found[node.module.partition(".")[0]] = path
    return found


def undeclared(workspace: Workspace, member: Member, source: Path) -> list[str]:
    """Imports of a package that neither its requirements nor its extras declare."""
    project = read_toml(workspace.folder(member) / "pyproject.toml")["project"]
    texts = [text for group in project.get("optional-dependencies", {}).values() for text in group]
    declared = {canonicalize_name(Requirement(text).name) for text in [*project["dependencies"], *texts]}
    declared.add(canonicalize_name(member.distribution))
    siblings = {sibling.module: sibling.distribution for sibling in workspace.members}
    # PyTorch for CUDA requires the one version of Triton that it works with; a requirement of ours could only disagree.
    homes = {**importlib.metadata.packages_distributions(), "triton": ["torch"]}
    missing = []
    for module, path in imported_modules(source).items():
        if module in sys.stdlib_module_names:
            continue
        owners = [siblings[module]] if module in siblings else homes.get(module, [module])
        if not declared & {canonicalize_name(owner) for owner in owners}:
            missing.append(f"{member.name}: {path.name} imports {module}, which pyproject.toml does not declare")
    return missing


def test_packages_import_only_what_they_declare(root):
    workspace = read_workspace(root)
    for member in workspace.members:
        assert undeclared(workspace, member, workspace.folder(member) / "src") == []


def test_the_declared_imports_check_can_fail(root, tmp_path):
    workspace = read_workspace(root)
    (tmp_path / "bad.py").write_text(
        "import os, numpy\ndef f():\n    from timm import layers\n    import unveil_pretrain\n"
    )
    found = undeclared(workspace, workspace.member("masking"), tmp_path)
    assert [line.split()[3].strip(",") for line in found] == ["timm", "unveil_pretrain"]
