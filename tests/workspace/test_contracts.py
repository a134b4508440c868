"""The import contracts of the root pyproject.toml hold, and each of them breaks when it is violated."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from workspace_manifest import read_toml, read_workspace


def lint_imports(tree: Path) -> str:
    """What import-linter says of the packages in `tree`; asserts nothing about the outcome."""
    sources = [str(path) for path in sorted(tree.glob("packages/*/src"))]
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache", "--no-logo", "--config", tree / "pyproject.toml"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sources), "COLUMNS": "200", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr + f"\nexit {done.returncode}"


@pytest.fixture
def tree(root, tmp_path) -> Path:
    """The sources of the four packages and the contracts, copied so that they can be violated."""
    shutil.copy(root / "pyproject.toml", tmp_path / "pyproject.toml")
    for folder in (root / "packages").iterdir():
        target = tmp_path / "packages" / folder.name / "src"
        shutil.copytree(folder / "src", target, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def violate(tree: Path, module: str, statement: str) -> None:
    """Add an import, inside a function so that a linter of top-level imports alone would miss it."""
    (path,) = tree.glob(f"packages/*/src/{module.replace('.', '/')}.py")
    path.write_text(path.read_text(encoding="utf-8") + f"\n\ndef _violation():\n    {statement}\n", encoding="utf-8")


def contract_names(root: Path) -> list[str]:
    return [contract["name"] for contract in read_toml(root / "pyproject.toml")["tool"]["importlinter"]["contracts"]]


def test_contracts_are_kept(root, tree):
    said = lint_imports(tree)
    for name in contract_names(root):
        assert f"{name} KEPT" in said, said
    assert said.endswith("exit 0")


def test_every_contract_can_break(root, tree):
    violate(tree, "unveil_masking.grid", "import torch")
    violate(tree, "unveil_backbones.errors", "import unveil_masking")
    violate(tree, "unveil_pretrain.errors", "from mmdet.registry import MODELS")
    violate(tree, "unveil_evalharness.results", "import torch")
    violate(tree, "unveil_evalharness.fingerprint", "import unveil_pretrain")
    said = lint_imports(tree)
    for name in contract_names(root):
        assert f"{name} BROKEN" in said, said
    assert "unveil_backbones is not allowed to import unveil_masking" in said
    assert "unveil_evalharness is not allowed to import unveil_pretrain" in said
    assert "unveil_pretrain is not allowed to import mmdet" in said
    assert said.endswith("exit 1")


# A finder in front of all others notes, and refuses, each module that must not be loaded.
PROBE = """
import importlib, sys
never = set(sys.argv[2].split(","))
class Watch:
    seen = set()
    def find_spec(self, name, path=None, target=None):
        if name in never:
            self.seen.add(name)
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Watch())
try:
    importlib.import_module(sys.argv[1])
except ModuleNotFoundError as error:
    if error.name not in (None, *never):
        raise
print(",".join(sorted(Watch.seen)))
"""


def forbidden_loads(module: str, never: tuple[str, ...]) -> str:
    """Which of `never` importing `module` in a fresh interpreter tries to load, joined by commas."""
    command = [sys.executable, "-c", PROBE, module, ",".join(never)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_light_imports_are_light(root):
    for light in read_workspace(root).light:
        assert forbidden_loads(light.module, light.never) == "", light.module


def test_the_light_import_check_can_fail():
    assert forbidden_loads("unveil_backbones.encoder", ("torch",)) == "torch"
    assert forbidden_loads("json", ("json", "torch")) == "json"
