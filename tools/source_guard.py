"""Finds calls that would run what a file or a user's text says: unpickling, eval, shells; `make lint` has no such rule.

    python tools/source_guard.py        # every line that needs a reason and has none; exit status 1 if there is one

What is meant is listed in `ALLOWED` with its reason. The names of the standard library are followed through imports
(`from pickle import loads as f`), not through assignments.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ALLOWED", "Found", "findings", "guarded_files", "unexplained"]

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("packages/*/src", "demo", "tools", "benchmarks", "study")

FORBIDDEN_CALLS: Mapping[str, str] = {
    "eval": "runs text",
    "exec": "runs text",
    "compile": "turns text into code",
    "__import__": "imports what text names",
    "importlib.import_module": "imports what text names",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "subprocess.getoutput": "runs a shell",
    "subprocess.getstatusoutput": "runs a shell",
    "tempfile.mktemp": "gives a name that another process may take first",
    "yaml.load": "builds any object that the file names",
    "yaml.unsafe_load": "builds any object that the file names",
    "yaml.full_load": "builds objects that the file names",
    "polars.sql": "runs a query",
    "mmengine.load": "reads pickles",
    "mmengine.fileio.load": "reads pickles",
    "mmengine.Config.fromfile": "runs a Python file",
    "mmengine.config.Config.fromfile": "runs a Python file",
    "mmengine.runner.load_checkpoint": "reads pickles",
    "mmengine.runner.CheckpointLoader.load_checkpoint": "reads pickles",
    "torch.hub.load": "runs code of a repository",
    "torch.jit.load": "runs a program",
    "torch.package.PackageImporter": "runs a program",
    "torch.distributed.checkpoint.FileSystemReader": "reads a pickle as its index",
    "numpy.core.records.fromfile": "reads objects",
    "shutil.unpack_archive": "writes where the archive says",
}
"""By full name."""
FORBIDDEN_MODULES: Mapping[str, str] = dict.fromkeys(
    ("pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"), "unpickles, or reads code"
)
HARMLESS_NAMES = frozenset({"pickle.UnpicklingError", "pickle.PicklingError"})
"""Errors are caught by name; nothing is read by them."""
FORBIDDEN_METHODS: Mapping[str, str] = {
    "extractall": "writes where the archive says",
    "extract": "writes where the archive says",
    "read_pickle": "unpickles",
    "load_state_dict_from_url": "reads a pickle from the network",
}

ALLOWED: Mapping[tuple[str, str], str] = {
    ("demo/real_data.py", "extractall"): "the user's own pack; zipfile drops '..' and roots from names",
    (
        "packages/backbones/src/unveil_backbones/__init__.py",
        "importlib.import_module",
    ): "names of the module's own table",
    ("packages/backbones/src/unveil_backbones/_torchvision.py", "importlib.import_module"): "a constant",
    ("packages/evalharness/src/unveil_evalharness/__init__.py", "importlib.import_module"): "names of its own table",
    ("packages/evalharness/src/unveil_evalharness/cli.py", "importlib.import_module"): "names of COMMANDS",
    ("packages/evalharness/src/unveil_evalharness/tasks/__init__.py", "importlib.import_module"): (
        "--tasks package.module:Class imports the user's own module on purpose (docs/security.md)"
    ),
    ("packages/evalharness/src/unveil_evalharness/doctor.py", "importlib.import_module"): "names of its own table",
    ("packages/evalharness/src/unveil_evalharness/compat/formatter.py", "importlib.import_module"): "a constant",
    ("packages/evalharness/src/unveil_evalharness/compat/install.py", "importlib.import_module"): "constants",
    ("packages/evalharness/src/unveil_evalharness/compat/extension.py", "importlib.import_module"): "a constant",
    ("packages/evalharness/src/unveil_evalharness/compat/checkpoints.py", "importlib.import_module"): "two constants",
    ("packages/evalharness/src/unveil_evalharness/compare/outcomes.py", "importlib.import_module"): (
        "a task's own metrics module, by a name checked against the tasks that exist"
    ),
    ("packages/pretrain/src/unveil_pretrain/__init__.py", "importlib.import_module"): "names of its own table",
    ("packages/pretrain/src/unveil_pretrain/cli.py", "importlib.import_module"): "names of COMMANDS",
    ("packages/pretrain/src/unveil_pretrain/loggers.py", "importlib.import_module"): "the loggers' names, a Literal",
    ("packages/pretrain/src/unveil_pretrain/planning/cluster_table.py", "str.format"): "sentences of the module itself",
    ("benchmarks/_reference.py", "importlib.import_module"): "reference programs that the user has cloned",
    ("tools/docs_commands.py", "compile"): "code in our own pages, compiled to see whether it is code; it is not run",
    ("tools/release.py", "extractall"): "git's own archive, with the filter `data`",
    ("tools", "importlib.import_module"): "golden files are recorded from reference programs that the user has cloned",
}
"""(file or folder, what): why it is meant. An entry that nothing needs is an error of the test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One call or import that has to be explained."""

    path: str
    """From the root, with slashes."""
    line: int
    what: str
    why: str


def guarded_files() -> Iterator[tuple[str, str]]:
    """Path from the root and text of every Python file that is shipped or run."""
    for pattern in PLACES:
        for folder in sorted(ROOT.glob(pattern)):
            for file in sorted(folder.rglob("*.py")):
                yield file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")


def findings(path: str, text: str) -> list[Found]:
    """Everything in one file that has to be explained."""
    tree = ast.parse(text)
    names = _imported(tree)
    found: list[Found] = []
    for node in ast.walk(tree):
        for what, why in _of(node, names):
            found.append(Found(path=path, line=getattr(node, "lineno", 0), what=what, why=why))
    return found


def unexplained() -> tuple[list[Found], list[tuple[str, str]]]:
    """What no entry of `ALLOWED` explains, and the entries that explain nothing."""
    used: set[tuple[str, str]] = set()
    left: list[Found] = []
    for path, text in guarded_files():
        for one in findings(path, text):
            keys = [key for key in ((path, one.what), (path.split("/")[0], one.what)) if key in ALLOWED]
            used.update(keys)
            left += [] if keys else [one]
    return left, sorted(set(ALLOWED) - used)


def _imported(tree: ast.AST) -> dict[str, str]:
    """Names of this file that stand for something imported, with the full name of that."""
    names: dict[str, str] = {"np": "numpy", "pl": "polars"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _of(node: ast.AST, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
        full = _full_name(node, names)
        module = full.partition(".")[0]
        if module in FORBIDDEN_MODULES and "." in full and full not in HARMLESS_NAMES:
            yield full, FORBIDDEN_MODULES[module]
        elif full in FORBIDDEN_CALLS:  # also where it is handed on; `re.compile` and `model.eval` are other names
            yield full, FORBIDDEN_CALLS[full]
    if isinstance(node, ast.Call):
        yield from _of_call(node, _full_name(node.func, names))


def _of_call(call: ast.Call, full: str) -> Iterator[tuple[str, str]]:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    last = full.rpartition(".")[2]
    if full == "torch.load" and not _is_constant(given.get("weights_only"), True):
        yield "torch.load", "unpickles anything without weights_only=True"
    if full == "numpy.load" and "allow_pickle" in given and not _is_constant(given["allow_pickle"], False):
        yield "numpy.load", "unpickles with allow_pickle"
    if "shell" in given and not _is_constant(given["shell"], False):
        yield "shell=True", "runs a shell"
    if last in FORBIDDEN_METHODS and "." in full:
        yield last, FORBIDDEN_METHODS[last]
    if last == "load" and full.startswith("yaml."):
        yield "yaml.load", "builds any object that the file names"
    if last == "format" and isinstance(call.func, ast.Attribute) and not _is_text(call.func.value, full):
        yield "str.format", "the text of the format decides what is looked up; write an f-string"


def _full_name(node: ast.AST, names: Mapping[str, str]) -> str:
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_full_name(node.value, names)}.{node.attr}"
    return "?"


def _is_constant(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _is_text(node: ast.AST, full: str) -> bool:
    """Whether the format is written in the source; Polars' function of this name looks nothing up."""
    return isinstance(node, ast.Constant | ast.JoinedStr) or full == "polars.format"


def main() -> int:
    """Print what is left; 1 if something is."""
    left, unused = unexplained()
    for one in left:
        print(f"{one.path}:{one.line}: {one.what} ({one.why})")
    for path, what in unused:
        print(f"tools/source_guard.py: ALLOWED has {what} in {path}, which is not there (any more)")
    return 1 if left or unused else 0


if __name__ == "__main__":
    sys.exit(main())
