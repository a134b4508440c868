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
    """Import each of `modules` as if no other module of `ours` were there.

    To begin at nothing six hundred times takes minutes. So a module that was tried, as was all that it brings along,
    stays there: it is whole then, all that it imports is, too, and what comes later is no part of it, so that it can
    close no circle of those. A module that needs nothing else of ours needs no process of its own, either.

    Args:
        ours: Top-level packages that are not there at first.
        modules: What to import; fast where most come after what they import.
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


def prepared(job: dict[str, list[str]]) -> list[object]:
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


def loaded(ours: Sequence[str]) -> set[str]:
    """The modules of ours that are there."""
    return {name for name in list(sys.modules) if name.partition(".")[0] in ours}


def attempt(name: str, ours: Sequence[str]) -> tuple[str, str]:
    """The kind of outcome and its reason, of an import in this very process."""
    try:
        import_module(name)
    except Exception as error:
        top = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if top and top not in ours:
            return "missing", str(error.name)
        return "broken", "".join(traceback.format_exc().splitlines(keepends=True)[-_LINES:])
    return "good", ""


def forked(name: str, ours: Sequence[str]) -> tuple[str, str, set[str]]:
    """The outcome in a child of this process, and what of ours came along."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        before = loaded(ours)
        outcome = attempt(name, ours)
        with os.fdopen(writing, "w") as stream:
            json.dump([*outcome, sorted(loaded(ours) - before)], stream)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        said = stream.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kind, reason, along = json.loads(said) if said else ("broken", f"the process ended with {code}", [])
    return kind, reason, set(along)


class Another(BaseException):
    """A module of ours is asked for that is not there; no handler of errors is meant to catch it."""


class Alone:
    """A finder before all others that lets one module of ours be imported, and no other."""

    def __init__(self, name: str, ours: Sequence[str]) -> None:
        self.name, self.ours = name, ours

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuses the others."""
        if name != self.name and name.partition(".")[0] in self.ours:
            raise Another(name)


def alone(name: str, ours: Sequence[str]) -> bool:
    """Import a module here if that brings no other of ours along; if it does, or fails, nothing has changed."""
    finder = Alone(name, ours)
    sys.meta_path.insert(0, finder)
    try:
        return attempt(name, ours)[0] == "good"
    except Another:
        return False
    finally:
        sys.meta_path.remove(finder)


def outcomes(modules: Sequence[str], ours: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The outcome of each module, the first of ours or after some that are whole and do not need it."""
    found: dict[str, tuple[str, str]] = {}
    waiting: dict[str, set[str]] = {}
    for name in modules:
        print(name, file=sys.stderr)  # the last one said is what ended this process, if one does
        if alone(name, ours):
            found[name] = "good", ""
        else:
            gc.freeze()  # children then copy fewer pages
            kind, reason, along = forked(name, ours)
            found[name] = kind, reason
            if kind == "good":
                waiting[name] = along
        for ready in [one for one, needed in waiting.items() if needed <= found.keys()]:
            import_module(ready)
            del waiting[ready]
    return found


def main() -> None:
    """Read the job, and print the outcomes as one line of JSON."""
    job = json.load(sys.stdin)
    gc.disable()
    held = prepared(job)
    found = outcomes(job["modules"], job["ours"])
    del held
    imports = Imports(
        good=tuple(name for name, (kind, _) in found.items() if kind == "good"),
        broken={name: reason for name, (kind, reason) in found.items() if kind == "broken"},
        missing={name: reason for name, (kind, reason) in found.items() if kind == "missing"},
    )
    print(json.dumps(asdict(imports)))


if __name__ == "__main__":
    main()
