"""docs/faults.md: every row names tests, and those are there."""

import ast
import re


def rows(root):
    text = (root / "docs" / "faults.md").read_text(encoding="utf-8")
    return [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")][1:]


def names_in(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def missing(root, cell):
    """Tests that a cell names and that are not there."""
    named = re.findall(r"`([\w./]+\.py)::(\w+)`", cell)
    assert named, cell
    files = {file: root / file if "/" in file else root / "tests" / "faults" / file for file, _ in named}
    return [f"{file}::{name}" for file, name in named if name not in names_in(files[file])]


def test_every_row_names_tests_that_are_there(root):
    found = rows(root)
    assert len(found) > 15
    assert [test for row in found for test in missing(root, row[3])] == []
    assert all(all(cell.strip() for cell in row) for row in found)


def test_a_name_that_is_not_there_would_be_found(root):
    assert missing(root, "`test_page.py::test_no_such_thing`") == ["test_page.py::test_no_such_thing"]
