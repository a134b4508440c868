"""Each package installs alone: as a wheel beside third-party packages only, and (slow) in fresh environments."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from workspace_manifest import Member, Workspace, read_toml, read_workspace

ROOT = Path(__file__).resolve().parents[2]
WORKSPACE = read_workspace(ROOT)
MEMBERS = [member.name for member in WORKSPACE.members]
TORCH_SIZED = [name for name in MEMBERS if name != "masking"]


def run(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command; when it fails, show what it said."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """One wheel for each member, built from a copy of its folder as a release would build it."""
    place = tmp_path_factory.mktemp("wheels")
    found = {}
    for member in WORKSPACE.members:
        source = place / "source" / member.name
        ignore = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(WORKSPACE.folder(member), source, ignore=ignore)
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place / "dist", cwd=source)
        (found[member.name],) = (place / "dist").glob(f"{member.module}-*.whl")
    return found


def package_files(workspace: Workspace, member: Member) -> set[str]:
    """What belongs in the wheel beside its metadata."""
    source = workspace.folder(member) / "src"
    files = (path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(source).as_posix() for path in files}


def wheel_surprises(wheel: Path, expected: set[str]) -> set[str]:
    """Files that the wheel has and should not have, or should have and has not."""
    names = set(zipfile.ZipFile(wheel).namelist())
    return {name for name in names if ".dist-info/" not in name} ^ expected


@pytest.mark.parametrize("name", MEMBERS)
def test_a_wheel_contains_exactly_its_package(wheels, name):
    member = WORKSPACE.member(name)
    expected = package_files(WORKSPACE, member)
    assert f"{member.module}/py.typed" in expected
    assert wheel_surprises(wheels[name], expected) == set()
    assert any(file.endswith(".dist-info/licenses/LICENSE") for file in zipfile.ZipFile(wheels[name]).namelist())


def test_the_wheel_check_can_fail(wheels, tmp_path):
    expected = package_files(WORKSPACE, WORKSPACE.member("masking"))
    broken = tmp_path / wheels["masking"].name
    shutil.copy(wheels["masking"], broken)
    with zipfile.ZipFile(broken, "a") as archive:
        archive.writestr("tests/test_left_over.py", "")
    assert wheel_surprises(broken, expected | {"unveil_masking/lost.py"}) == {
        "tests/test_left_over.py",
        "unveil_masking/lost.py",
    }


def run_alone(wheels: dict[str, Path], names: list[str], target: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python with the named wheels and the third-party packages only.

    `-S` leaves the .pth files of the environment unread, so that the editable siblings cannot be found.
    """
    for name in names:
        zipfile.ZipFile(wheels[name]).extractall(target)
    path = os.pathsep.join([str(target), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=target,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", MEMBERS)
def test_a_wheel_works_without_the_packages_it_does_not_require(wheels, tmp_path, name):
    """Every public name resolves, which imports what stands behind it, and the command shows its help."""
    needed = [member.name for member in WORKSPACE.with_siblings(name)]
    module = WORKSPACE.member(name).module
    every_name = f"import {module} as p; [getattr(p, name) for name in p.__all__]"
    done = run_alone(wheels, needed, tmp_path, "-c", every_name)
    assert done.returncode == 0, done.stderr
    scripts = read_toml(ROOT / "packages" / name / "pyproject.toml")["project"].get("scripts", {})
    for command, entry in scripts.items():
        where, function = entry.split(":")
        call = f"import sys; from {where} import {function}; sys.argv = ['{command}', '--help']; sys.exit({function}())"
        done = run_alone(wheels, needed, tmp_path, "-c", call)
        assert done.returncode == 0, done.stderr
        assert command in done.stdout


def test_running_alone_hides_the_siblings(wheels, tmp_path):
    done = run_alone(wheels, ["masking"], tmp_path, "-c", "import unveil_masking, unveil_backbones")
    assert "No module named 'unveil_backbones'" in done.stderr


def fresh_environment(place: Path) -> Path:
    """The interpreter of a new virtual environment."""
    run(sys.executable, "-m", "venv", place)
    return place / "bin" / "python"


def pip_install(python: Path, *what: str) -> None:
    run(python, "-m", "pip", "install", "--disable-pip-version-check", "-q", "-c", "constraints.txt", *what)


def installed(python: Path) -> set[str]:
    listed = run(python, "-m", "pip", "list", "--disable-pip-version-check", "--format", "freeze")
    return {line.split("==")[0] for line in listed.splitlines()} - {"pip", "setuptools", "wheel"}


def run_own_tests(python: Path, member: Member) -> str:
    """The package's own tests, in an environment that holds only what it declares and the test tools."""
    tests = f"packages/{member.name}/tests"
    markers = ("-m", "not slow and not gpu and not mm")
    return run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *markers, tests, OMP_NUM_THREADS="1")


def test_masking_installs_alone_with_numpy_only_and_passes_its_tests(tmp_path):
    python = fresh_environment(tmp_path / "venv")
    pip_install(python, "./packages/masking")
    assert installed(python) == {"numpy", "unveil-masking"}
    pip_install(python, "pytest", "hypothesis")
    assert " passed" in run_own_tests(python, WORKSPACE.member("masking"))


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH_SIZED)
def test_a_package_installs_by_its_documented_line(tmp_path, name):
    """The line of the README, after torch itself; only the siblings that it names are there afterwards."""
    python = fresh_environment(tmp_path / "venv")
    pip_install(python, *WORKSPACE.install_line(name).split()[2:])
    needed = WORKSPACE.with_siblings(name)
    ours = {distribution for distribution in installed(python) if distribution.startswith("unveil-")}
    assert ours == {member.distribution for member in needed}
    run(python, "-m", "pip", "check", "--disable-pip-version-check")
    module = needed[-1].module
    run(python, "-c", f"import {module} as p; [getattr(p, name) for name in p.__all__]", cwd=tmp_path)


@pytest.mark.slow
def test_a_package_that_needs_siblings_does_not_install_without_them(tmp_path):
    """Said in the README: pip does not look for siblings, so the line must name them."""
    python = fresh_environment(tmp_path / "venv")
    with pytest.raises(AssertionError, match="No matching distribution found for unveil-"):
        pip_install(python, "./packages/pretrain")
