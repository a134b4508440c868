"""Imports every named module as the first of its packages, and says of each how that went.

    python first_imports.py < JOB

A suite imports much before it comes to a module, and so never sees a circle of imports that only bites who enters it at
that module. What is slow to import is imported once; every module then has a fork of its own.
"""

import gc
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

__all__ = ["Imports", "first_imports"]

_LINES = 12


@dataclass(frozen=True, kw_only=True)
class Imports:
    """How the imports went, by module."""

    good: tuple[str, ...]
    broken: dict[str, str]
    """The end of the traceback."""
    missing: dict[str, str]
    """The module of others that is not installed here."""


def first_imports(
    ours: Sequence[str],
    modules: Sequence[str],
    *,
    preload: Sequence[str] = (),
    prepare: Sequence[str] = (),
    path: Sequence[Path] = (),
) -> Imports:
    """Import each of `modules` with no other module of its package there.

    Args:
        ours: Top-level packages that are not there at first. Those before a module's own are whole by then: they
            import nothing of it, and a module that is whole can be part of no circle.
        modules: What to import.
        preload: Modules of others that are imported beforehand, where they can be.
        prepare: Functions of ours ("module:function") called before that; their modules are forgotten again.
        path: Folders searched before all others.
    """
    job = {"ours": list(ours), "modules": list(modules), "preload": list(preload), "prepare": list(prepare)}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    if path:
        environment["PYTHONPATH"] = os.pathsep.join([*map(str, path), environment.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(job), capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    return Imports(good=tuple(said["good"]), broken=said["broken"], missing=said["missing"])


def ready(job: dict[str, list[str]]) -> list[object]:
    """Import what is slow; what is returned must live on, for it holds what the preparation declared."""
    held: list[object] = []
    for target in job["prepare"]:
        module, _, function = target.partition(":")
        held.append(getattr(import_module(module), function)())
    for name in job["preload"]:
        try:
            import_module(name)
        except Exception as error:  # whatever it is, whoever needs the module meets it again
            print(f"{name}: {error}", file=sys.stderr)
    names = [name for name in sys.modules if name.partition(".")[0] in job["ours"]]
    held += [sys.modules.pop(name) for name in names]
    return held


def attempt(name: str, ours: list[str]) -> tuple[str, str]:
    """The kind of outcome and its reason, of an import in this very process."""
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        if top and top not in ours:
            return "missing", str(error.name)
        return "broken", "".join(traceback.format_exc().splitlines(keepends=True)[-_LINES:])
    except Exception:
        return "broken", "".join(traceback.format_exc().splitlines(keepends=True)[-_LINES:])
    return "good", ""


def forked(name: str, ours: list[str]) -> tuple[str, str]:
    """The outcome in a child of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        gc.disable()
        with os.fdopen(writing, "w") as stream:
            json.dump(attempt(name, ours), stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kind, reason = json.loads(said) if said else ("broken", f"the process ended with {code}")
    return kind, reason


def main() -> None:
    """Read the job, and print the outcomes as one line of JSON."""
    job = json.load(sys.stdin)
    held = ready(job)
    found: dict[str, tuple[str, str]] = {}
    for package in job["ours"]:
        gc.freeze()  # children then copy fewer pages
        members = [name for name in job["modules"] if name.partition(".")[0] == package]
        found |= {name: forked(name, job["ours"]) for name in members}
        held += [import_module(name) for name in members if found[name][0] == "good"]
    del held
    imports = Imports(
        good=tuple(name for name, (kind, _) in found.items() if kind == "good"),
        broken={name: reason for name, (kind, reason) in found.items() if kind == "broken"},
        missing={name: reason for name, (kind, reason) in found.items() if kind == "missing"},
    )
    print(json.dumps(asdict(imports)))


if __name__ == "__main__":
    main()
