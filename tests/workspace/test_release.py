"""`make release`: what it refuses, what it builds, and that versions of the packages move independently."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import release
from workspace_manifest import read_workspace

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def workspace(tmp_path):
    """A repository of its own with this workspace's packages, without their tests."""
    root = tmp_path / "workspace"
    ignore = shutil.ignore_patterns("tests", "__pycache__", ".*", "dist", "build")
    shutil.copytree(ROOT / "packages", root / "packages", ignore=ignore)
    for name in ("workspace.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    git(tmp_path, "init", "-q", str(root))
    git(root, "config", "user.name", "somebody")
    git(root, "config", "user.email", "somebody@example.org")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "all")
    return read_workspace(root)


def run_release(workspace, *words: str) -> int:
    return release.main(
        [*words, "--root", str(workspace.root), "--out", str(workspace.root.parent / "dist"), "--no-install"]
    )


def set_version(workspace, name: str, version: str) -> None:
    """Raise a version in every place that a release looks at."""
    folder = workspace.root / "packages" / name
    pyproject = folder / "pyproject.toml"
    pyproject.write_text(re.sub(r'^version = ".*"$', f'version = "{version}"', pyproject.read_text(), flags=re.M))
    changelog = folder / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("## ", f"## {version}\n\n- Another.\n\n## ", 1))
    git(workspace.root, "commit", "-qam", f"{name} {version}")


def test_a_release_is_built_checked_and_tagged(workspace, capsys):
    assert run_release(workspace, "masking") == 0
    printed = capsys.readouterr().out
    assert "twine and contents: good" in printed
    assert "not tagged" in printed
    assert run_release(workspace, "masking", "--tag") == 0
    version = release.version_of(workspace, workspace.member("masking"))
    tags = subprocess.run(["git", "tag"], cwd=workspace.root, check=True, capture_output=True, text=True).stdout.split()
    assert tags == [f"masking-v{version}"]
    assert run_release(workspace, "masking") == 1
    assert "raise the version" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda root: (root / "stray.txt").write_text("x"), "has changes"),
        (
            lambda root: (root / "packages/masking/CHANGELOG.md").write_text("# Changelog\n\n## 9.9.9\n"),
            "begins with 9.9.9",
        ),
    ],
)
def test_what_is_not_ready_is_refused(workspace, capsys, change, complaint):
    change(workspace.root)
    if complaint != "has changes":
        git(workspace.root, "commit", "-qam", "another changelog")
    assert run_release(workspace, "masking") == 1
    assert complaint in capsys.readouterr().err


def test_an_unknown_package_is_refused(workspace, capsys):
    assert run_release(workspace, "maskign") == 1
    assert "maskign" in capsys.readouterr().err


@pytest.mark.slow
def test_wrong_contents_are_found(workspace, tmp_path):
    member = workspace.member("masking")
    built = release.build(workspace, member, tmp_path / "dist")
    release.check_contents(member, built)
    with zipfile.ZipFile(built.wheel, "a") as wheel:
        wheel.writestr("tests/test_left_over.py", "")
    with pytest.raises(release.ReleaseError, match="test_left_over"):
        release.check_contents(member, built)
    with zipfile.ZipFile(built.wheel, "w") as wheel:
        wheel.writestr("unveil_masking/__init__.py", "")
    with pytest.raises(release.ReleaseError, match=r"py\.typed, LICENSE"):
        release.check_contents(member, built)


def versions(python: Path) -> dict[str, str]:
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return dict(line.split("==") for line in listed.splitlines() if line.startswith("unveil-"))


@pytest.mark.slow
def test_one_package_is_released_and_upgraded_and_the_others_stay(workspace, tmp_path):
    """From an index of our own: a folder. Third-party requirements are left out, as they are not under test."""
    index, venv = tmp_path / "index", tmp_path / "venv"
    for member in workspace.members:
        release.build(workspace, member, index)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    from_index = [python, "-m", "pip", "install", "-q", "--no-index", "--find-links", index, "--no-deps"]
    names = [member.distribution for member in workspace.members]
    subprocess.run([*from_index, *names], check=True)
    before = versions(python)
    assert set(before) == set(names)

    major, minor, patch = before["unveil-masking"].split(".")
    newer = f"{major}.{minor}.{int(patch) + 1}"
    set_version(workspace, "masking", newer)
    assert release.main(["masking", "--tag", "--root", str(workspace.root), "--out", str(index), "--no-install"]) == 0
    subprocess.run([*from_index, "--upgrade", "unveil-masking"], check=True)
    assert versions(python) == {**before, "unveil-masking": newer}
    # The new version lies within the range that the siblings require.
    assert f'"unveil-masking{workspace.siblings["masking"]}"' in (ROOT / "packages/pretrain/pyproject.toml").read_text()


@pytest.mark.slow
def test_masking_installs_alone(workspace, tmp_path):
    member = workspace.member("masking")
    release.install_alone(workspace, member, release.build(workspace, member, tmp_path / "dist"))
    (workspace.root / "packages/masking/src/unveil_masking/__init__.py").write_text('__all__ = ["nothing"]\n')
    git(workspace.root, "commit", "-qam", "broken")
    with pytest.raises(release.ReleaseError, match="nothing"):
        release.install_alone(workspace, member, release.build(workspace, member, tmp_path / "dist"))
