"""Release one package: check, build, check what was built, install it alone, and tag if asked to. Nothing is uploaded.

python tools/release.py masking              # everything but the tag
python tools/release.py masking --tag        # and the tag masking-v<version>
"""

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workspace_manifest import Member, Workspace, read_toml, read_workspace

__all__ = ["ReleaseError", "build", "check_contents", "check_versions", "install_alone", "main", "version_of"]

_TAIL = 2000


class ReleaseError(Exception):
    """What stands in the way of a release, and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """What a release consists of."""

    wheel: Path
    sdist: Path


def version_of(workspace: Workspace, member: Member) -> str:
    """The version that the package's pyproject states."""
    return str(read_toml(workspace.folder(member) / "pyproject.toml")["project"]["version"])


def check_clean(root: Path) -> None:
    """Refuse a tree with changes: what is built would not be what is committed.

    Raises:
        ReleaseError: with the first paths.
    """
    changed = _run("git", "status", "--porcelain", "--untracked-files=normal", cwd=root).splitlines()
    if changed:
        raise ReleaseError(f"the tree has changes ({'; '.join(changed[:3])}); commit them or take them back")


def check_versions(workspace: Workspace, member: Member) -> str:
    """The version, if the changelog begins with it and no tag has it.

    Raises:
        ReleaseError: it does not, or one has.
    """
    version = version_of(workspace, member)
    text = (workspace.folder(member) / "CHANGELOG.md").read_text(encoding="utf-8")
    head = re.search(r"^## \[?([^\s\]]+)", text, re.MULTILINE)
    if head is None or head[1] != version:
        found = head[1] if head else "nothing"
        raise ReleaseError(f"{member.name} is {version} and its CHANGELOG.md begins with {found}; give both one number")
    tag = f"{member.name}-v{version}"
    if _run("git", "tag", "--list", tag, cwd=workspace.root).strip():
        raise ReleaseError(f"there is a tag {tag}; raise the version of {member.name}")
    return version


def build(workspace: Workspace, member: Member, out: Path) -> Built:
    """Source archive and wheel, made of the committed files of the package alone.

    Args:
        workspace: the workspace; its root is a git repository.
        member: what to build.
        out: folder to write to; older files of this version there are replaced.

    Raises:
        ReleaseError: the build fails.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        archive = Path(place) / "committed.tar"
        folder = f"packages/{member.name}"
        _run("git", "archive", "--output", str(archive), "HEAD", folder, cwd=workspace.root)
        with tarfile.open(archive) as committed:
            committed.extractall(place, filter="data")
        _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), cwd=Path(place) / folder)
    version = version_of(workspace, member)
    stem = f"{member.distribution.replace('-', '_')}-{version}"
    return Built(wheel=out / f"{stem}-py3-none-any.whl", sdist=out / f"{stem}.tar.gz")


def check_contents(member: Member, built: Built) -> None:
    """The wheel holds the package, its marker of types and the licence, and nothing else; the archive is complete.

    Raises:
        ReleaseError: with the files that are missing or too many.
    """
    with zipfile.ZipFile(built.wheel) as wheel:
        names = wheel.namelist()
    strange = [name for name in names if not name.startswith(f"{member.module}/") and ".dist-info/" not in name]
    strange += [name for name in names if "/tests/" in name or "__pycache__" in name]
    if strange:
        raise ReleaseError(f"{built.wheel.name} has {strange[:3]}, which are not of {member.module}; see its pyproject")
    wanted = [f"{member.module}/__init__.py", f"{member.module}/py.typed"]
    missing = [name for name in wanted if name not in names]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        missing.append("LICENSE")
    with tarfile.open(built.sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    missing += [
        f"{name} (source)" for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE") if name not in inside
    ]
    if missing:
        raise ReleaseError(f"{member.distribution} lacks {', '.join(missing)}; add them to its pyproject or folder")


def install_alone(workspace: Workspace, member: Member, built: Built) -> None:
    """Install the wheel in a fresh environment, with siblings built from this tree, and import every public name.

    Raises:
        ReleaseError: it cannot be installed, or a name cannot be imported.
    """
    with tempfile.TemporaryDirectory() as place:
        siblings = [
            build(workspace, other, Path(place) / "siblings").wheel
            for other in workspace.with_siblings(member.name)[:-1]
        ]
        _run(sys.executable, "-m", "venv", str(Path(place) / "venv"), cwd=place)
        python = str(Path(place) / "venv" / "bin" / "python")
        pins = ("-c", str(workspace.root / "constraints.txt"))
        wheels = map(str, (*siblings, built.wheel))
        _run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *pins, *wheels, cwd=place)
        names = f"import {member.module} as p; [getattr(p, name) for name in p.__all__]"
        _run(python, "-c", names, cwd=place)


def _run(*command: str, cwd: Path | str) -> str:
    done = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-_TAIL:]
        raise ReleaseError(f"{' '.join(command[:4])} … ended with {done.returncode}:\n{said}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when the release stands, 1 with one message when something is in its way."""
    parser = argparse.ArgumentParser(description="Check and build a release of one package; tag it if asked to.")
    parser.add_argument("package", help="its folder under packages/")
    parser.add_argument("--tag", action="store_true", help="tag the commit <package>-v<version>; nothing is pushed")
    parser.add_argument("--out", type=Path, help="folder for what is built (default: dist/ of the workspace)")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="the workspace")
    parser.add_argument("--no-install", action="store_true", help="leave the installation in a fresh environment out")
    given = parser.parse_args(arguments)
    workspace = read_workspace(given.root)
    try:
        _release(workspace, given)
    except (ReleaseError, KeyError) as error:
        sys.stderr.write(f"release: {error.args[0]}\n")
        return 1
    return 0


def _release(workspace: Workspace, given: argparse.Namespace) -> None:
    member = workspace.member(given.package)
    check_clean(workspace.root)
    version = check_versions(workspace, member)
    built = build(workspace, member, given.out or workspace.root / "dist")
    _say(f"built {built.sdist.name} and {built.wheel.name}")
    _run(sys.executable, "-m", "twine", "check", "--strict", str(built.wheel), str(built.sdist), cwd=workspace.root)
    check_contents(member, built)
    _say("twine and contents: good")
    if given.no_install:
        _say("not installed anywhere (--no-install)")
    else:
        install_alone(workspace, member, built)
        _say("installs alone in a fresh environment; every public name imports")
    tag = f"{member.name}-v{version}"
    if given.tag:
        _run("git", "tag", "-a", tag, "-m", f"{member.distribution} {version}", cwd=workspace.root)
        _say(f"tagged {tag}; push it by: git push origin {tag}")
    else:
        _say(f"not tagged; --tag (make release TAG=yes) would tag {tag}")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
