"""workspace.toml and the rest of the repository agree, and the check finds each kind of disagreement."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workspace_agreement import disagreements
from workspace_manifest import read_workspace


@pytest.fixture
def copy(root, tmp_path) -> Path:
    """What the check reads, copied so that it can be broken."""
    for name in ("workspace.toml", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path / name)
    for folder in (root / "packages").iterdir():
        ignore = shutil.ignore_patterns("tests", "*.md.tmp", "__pycache__", "dist", "build")
        shutil.copytree(folder, tmp_path / "packages" / folder.name, ignore=ignore)
    return tmp_path


def test_the_repository_agrees(root):
    assert disagreements(root) == []


def test_an_untouched_copy_agrees(copy):
    assert disagreements(copy) == []


@pytest.mark.parametrize(
    ("path", "old", "new", "sentence"),
    [
        ("workspace.toml", "unveil-masking", "unveil-masks", "masking: distribution is unveil-masking"),
        ("workspace.toml", '"unveil_masking"', '"unveil_masks"', r"masking: src/ holds \['unveil_masking'\]"),
        (
            "workspace.toml",
            'python = ">=3.11"',
            'python = ">=3.12"',
            "requires-python >=3.11, workspace",
        ),
        ("workspace.toml", "[members.masking]", "[members.masks]", "member masks: has no packages/ folder"),
        ("workspace.toml", '["backbones", "masking"]', '["backbones"]', "pretrain: requires siblings"),
        ("workspace.toml", 'masking = ">=0.1,<0.2"', 'masking = ">=0.1,<0.3"', "pretrain: requires unveil-masking"),
        (
            "workspace.toml",
            'torch = ">=2.9"',
            'torch = ">=2.5"',
            "requires torch>=2.9, workspace.toml says >=2.5",
        ),
        (
            "workspace.toml",
            "[third-party]",
            '[third-party]\neinops = ">=0.8"',
            "einops: no package requires it",
        ),
        ("workspace.toml", 'extras = ["clip"]', 'extras = ["clop"]', r"backbones: extras \['clop'\]"),
        ("constraints.txt", "\ntorch==", "\n# torch==", "third-party torch: constraints.txt does not pin it"),
        ("constraints.txt", "\nmmdet==3.3.0", "\nmmdet==3.2.0", "third-party mmdet: constraints.txt pins 3.2.0"),
        ("constraints.txt", "opencv-python-headless==", "opencv-python-headless==4.", "opencv-python-headless differ"),
        ("packages/masking/CHANGELOG.md", "## 0.1.0", "## 0.0.9", "CHANGELOG.md begins with 0.0.9"),
        ("packages/masking/pyproject.toml", 'version = "0.1.0"', 'version = "0.2.0"', "but masking is 0.2.0"),
        ("packages/masking/pyproject.toml", '["src/unveil_masking"]', '["src"]', "the wheel is not made of"),
        ("packages/pretrain/pyproject.toml", '"tqdm>=4.66"', '"tqdm>=4.60"', "pretrain: requires tqdm>=4.60"),
        ("pyproject.toml", '"packages/backbones/src", ', "", "basedpyright: include does not list"),
        ("pyproject.toml", '"packages/pretrain/tests", ', "", "testpaths does not list"),
        (
            "pyproject.toml",
            'root_packages = ["unveil_masking", ',
            "root_packages = [",
            "root_packages are not",
        ),
        ("pyproject.toml", "unveil_backbones | unveil_masking", "unveil_backbones", "the layers are not the members"),
        ("pyproject.toml", 'members = ["packages/*"]', 'members = ["packages/a"]', "members is not packages"),
    ],
)
def test_each_disagreement_is_found(copy, path, old, new, sentence):
    text = (copy / path).read_text(encoding="utf-8")
    assert old in text
    (copy / path).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert re.search(sentence, "\n".join(disagreements(copy)))


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "LICENSE", "src/unveil_masking/py.typed"])
def test_a_missing_file_is_found(copy, name):
    (copy / "packages/masking" / name).unlink()
    assert f"masking: packages/masking/{name} is missing" in disagreements(copy)


def test_a_literal_version_must_agree(copy):
    module = copy / "packages/masking/src/unveil_masking/__init__.py"
    module.write_text(module.read_text(encoding="utf-8") + '\n__version__ = "9.9.9"\n', encoding="utf-8")
    assert "masking: version 0.1.0, but __version__ is 9.9.9" in disagreements(copy)


def test_siblings_form_no_circle(root):
    workspace = read_workspace(root)
    for member in workspace.members:
        names = [sibling.name for sibling in workspace.with_siblings(member.name)]
        assert names[-1] == member.name
        assert len(names) == len(set(names))


def test_the_readme_shows_the_install_line_of_every_package(root):
    """The documented lines name each package after its siblings; extras and quotes may differ."""
    readme = re.sub(r"\[[a-z,]+\]|'", "", (root / "README.md").read_text(encoding="utf-8"))
    for member in read_workspace(root).members:
        wanted = set(read_workspace(root).install_line(member.name).split()[2:])
        lines = [set(line.split("#")[0].split()[2:]) for line in readme.splitlines() if line.startswith("pip install")]
        assert wanted in lines, wanted


def test_the_command_prints_what_the_makefile_needs(root):
    def run(*arguments: str) -> list[str]:
        command = [sys.executable, "-S", str(root / "tools/workspace_manifest.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    lines = run("requirements")
    assert lines[:4] == [
        "-e ./packages/masking[torch]",
        "-e ./packages/backbones[clip]",
        "-e ./packages/pretrain[all]",
        "-e ./packages/evalharness[all]",
    ]
    assert "pytest" in lines
    assert run("install", "evalharness") == ["pip install ./packages/backbones ./packages/evalharness"]
