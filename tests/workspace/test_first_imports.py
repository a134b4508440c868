"""Every module can be the first that a process imports: no circle of imports bites who enters it there."""

import re

import pytest
from first_imports import Imports, first_imports
from workspace_manifest import Workspace, read_workspace

# torchvision and mmcv have to be made importable where their compiled parts are not there.
PREPARE = ("unveil_backbones:ensure_torchvision", "unveil_evalharness.compat:install")


def sources(workspace: Workspace) -> dict[str, str]:
    """The text of every module of the four packages, by its dotted name."""
    found = {}
    for member in workspace.members:
        source = workspace.folder(member) / "src"
        for path in sorted((source / member.module).rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path.read_text(encoding="utf-8")
    return found


def named_at_the_top(text: str) -> list[str]:
    """Modules that a module names in an import at its top. A guess will do: nothing but time depends on it."""
    found = []
    for module, names in re.findall(r"^(?:from ([\w.]+) )?import ([\w., ]+)", text, re.MULTILINE):
        words = [part.split()[0] for part in names.split(",") if part.strip()]
        found += [module, *(f"{module}.{word}" for word in words)] if module else words
    return found


def in_order(texts: dict[str, str]) -> list[str]:
    """The modules, each after those that it names and the packages it is in, as far as there are no circles."""
    done: dict[str, None] = {}
    entered: set[str] = set()

    def visit(name: str) -> None:
        if name in texts and name not in entered:
            entered.add(name)
            for needed in (name.rpartition(".")[0], *named_at_the_top(texts[name])):
                visit(needed)
            done[name] = None

    for name in texts:
        visit(name)
    return list(done)


@pytest.fixture(scope="module")
def imports(root) -> Imports:
    workspace = read_workspace(root)
    ours = [member.module for member in workspace.members]
    texts = sources(workspace)
    named = sorted({name for text in texts.values() for name in named_at_the_top(text)})
    others = [name for name in named if name.partition(".")[0] not in ours]
    return first_imports(ours, in_order(texts), preload=others, prepare=PREPARE)


@pytest.mark.slow
def test_every_module_can_be_imported_first(imports):
    """All but those that need what no `make install` without a GPU installs."""
    assert imports.broken == {}, "\n".join(f"{name}\n{said}" for name, said in imports.broken.items())
    assert set(imports.missing.values()) <= {"triton"}, imports.missing
    assert len(imports.good) > 500


def test_a_circle_that_bites_from_one_side_alone_is_found(tmp_path):
    """`drawn` imports a module of `shown`, whose package imports `drawn`: good from one end, broken from the other."""
    files = {
        "one/__init__.py": "",
        "one/drawn.py": "from one.shown.marks import dot\nline = dot",
        "one/shown/__init__.py": "from one.shown.page import page",
        "one/shown/marks.py": "dot = 1",
        "one/shown/page.py": "from one.drawn import line\npage = line",
        "one/needs.py": "import not_installed_anywhere",
        "one/lost.py": "import one.nowhere",
        "one/fails.py": "raise RuntimeError('at once')",
        "one/leaves.py": "import one.lonely\nimport os\nos._exit(7)",
        "one/lonely.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    names = [
        "one",
        "one.drawn",
        "one.shown",
        "one.shown.marks",
        "one.needs",
        "one.lost",
        "one.fails",
        "one.leaves",
        "one.lonely",
    ]
    found = first_imports(["one"], names, path=[tmp_path])
    assert found.good == ("one", "one.shown", "one.shown.marks", "one.lonely")
    assert "cannot import name 'line' from partially initialized module 'one.drawn'" in found.broken.pop("one.drawn")
    assert "No module named 'one.nowhere'" in found.broken.pop("one.lost")
    assert "RuntimeError: at once" in found.broken.pop("one.fails")
    assert found.broken == {"one.leaves": "the process ended with 7"}
    assert found.missing == {"one.needs": "not_installed_anywhere"}
